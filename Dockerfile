# The tensorflow[and-cuda] wheels bring CUDA and cuDNN, so a plain Python image is
# enough: the host needs only its NVIDIA driver and container toolkit, and without
# them the same image runs on the CPU.
#
#   docker build -t keras-mobilenets .
#   docker run --gpus all -v runs:/mobilenets/runs keras-mobilenets
FROM python:3.12-slim-bookworm

# Fashion-MNIST as Debian packages it: real images without a download.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends dataset-fashion-mnist \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY keras_mobilenets ./keras_mobilenets
RUN pip install --no-cache-dir '.[gpu]'

RUN useradd --create-home --uid 1000 keras \
    && mkdir -p /mobilenets/runs /mobilenets/data \
    && chown -R keras /mobilenets
USER keras
WORKDIR /mobilenets
ENV TFDS_DATA_DIR=/mobilenets/data
VOLUME ["/mobilenets/runs", "/mobilenets/data"]

ENTRYPOINT ["keras-mobilenets"]
CMD ["train"]
