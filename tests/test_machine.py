"""What is said of the machine that figures come from."""

import os

from keras_mobilenets import machine


def test_it_says_what_decides_the_speed_and_whose_it_is_not():
    about = machine.about_machine()
    names = "processor instructions cores system python keras tensorflow note"
    assert list(about) == names.split()
    assert about["cores"] == os.cpu_count()
    assert about["processor"]
    assert set(about["instructions"]) <= set(machine.FAST)
