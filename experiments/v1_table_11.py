"""MobileNetV1 Table 11: where on earth a photograph was taken (PlaNet).

Howard et al. 2017 (arXiv:1704.04861), Table 11: percent of the Im2GPS test
photographs that are localised within a distance. None of it can be had here. The
costs are those of the text, section 4.4: 13 M parameters, 3 M of them in the body
and 10 M in the last layer. The number of cells on the globe is not given; 10 M
kernels and biases behind 1,024 channels are 9,756 of them, and with these the
network costs what the text says.

Errata. The text prints 0.58 *million* mult-adds; it has 0.58 billion. And it calls
the MobileNet slightly worse, which Table 11 contradicts at both ends: 79.3 against
77.6 % of the continents and 11.4 against 11.0 % of the streets.
"""

from __future__ import annotations

from typing import Any

from experiments.report import compare, kernels_and_bias, report
from keras_mobilenets.architecture import make_plan, plan_cost

# scale, distance in km, percent of Im2GPS, of PlaNet, of PlaNet with MobileNet
PAPER = (
    ("Continent", "2500", "51.9", "77.6", "79.3"),
    ("Country", "750", "35.4", "64.0", "60.3"),
    ("Region", "200", "32.1", "51.1", "45.2"),
    ("City", "25", "21.9", "31.7", "31.7"),
    ("Street", "1", "2.5", "11.0", "11.4"),
)
SYSTEMS = ("Im2GPS", "PlaNet", "PlaNet MobileNet")

# Of the text: millions of parameters, and the mult-adds as printed and as meant.
PARAMS_M, BODY_M, LAST_LAYER_M = "13", "3", "10"
MULT_ADDS = "0.58"
INCEPTION = (
    "52",
    "5.74",
)  # PlaNet's own: millions of parameters, billions of mult-adds

NO_DATA = "no training here: the photographs are not public"
BETTER = "the text says that MobileNet is slightly worse; here it is better"
UNIT = "the unit must be billion"


def rows() -> list[dict[str, Any]]:
    table = []
    for scale, kilometres, *percents in PAPER:
        _, planet, mobilenet = map(float, percents)
        for system, percent in zip(SYSTEMS, percents, strict=True):
            note = NO_DATA
            if system == SYSTEMS[-1] and mobilenet > planet:
                note = f"{NO_DATA}; {BETTER}"
            row = f"{scale}, {kilometres} km"
            table.append(compare(row, f"{system} (%)", percent, note=note))

    body_plan = make_plan("mobilenet_v1", include_top=False)
    channels = body_plan[-1].channels_out
    cells = round(float(LAST_LAYER_M) * 1e6 / (channels + 1))
    plan = make_plan("mobilenet_v1", classes=cells)
    body, whole = kernels_and_bias(body_plan), kernels_and_bias(plan)
    macs = plan_cost(plan).macs
    note = f"the cells on the globe are not given: {cells:,} of them make the 10 M"
    name = SYSTEMS[-1]
    return [
        *table,
        compare("PlaNet", "params (M)", INCEPTION[0]),
        compare("PlaNet", "mult-adds (G)", INCEPTION[1]),
        compare(name, "params of the body (M)", BODY_M, body / 1e6),
        compare(name, "params of the last layer (M)", LAST_LAYER_M, note=note),
        compare(name, "params (M)", PARAMS_M, whole / 1e6, note=note),
        compare(name, "mult-adds (G)", MULT_ADDS, macs / 1e9, note=note),
        compare(name, "mult-adds (M)", MULT_ADDS, macs / 1e6, erratum=UNIT),
    ]


if __name__ == "__main__":
    report(__file__, __doc__, rows())
