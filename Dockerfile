# AuthFace with all commands. Two bases:
#
#     docker build -t authface .                                   # CPU
#     docker build -t authface:cuda --build-arg BASE=nvidia/cuda:13.0.2-runtime-ubuntu24.04 .
#
#     docker run --rm -v "$PWD:/data" authface doctor
#     docker run --rm --gpus all -v "$PWD:/data" authface:cuda train-prior --preset 1x24gb
#
# The CPU image takes PyTorch without CUDA, which is 5 GB smaller.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}
ARG BASE

# python3 and venv for bases without Python. OpenCV's headless build needs no libGL.
RUN command -v python3 >/dev/null || { apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*; }

WORKDIR /opt/authface
COPY pyproject.toml constraints.txt README.md LICENSE cli.py ./
COPY manifests manifests
COPY authface_data authface_data
COPY authface_train authface_train

RUN python3 -m venv /opt/venv \
    && case "$BASE" in *cuda*) ;; *) /opt/venv/bin/pip install --no-cache-dir \
        --index-url https://download.pytorch.org/whl/cpu torch torchvision ;; esac \
    && /opt/venv/bin/pip install --no-cache-dir '.[data,train,serve,xlsx]' \
    && /opt/venv/bin/pip uninstall --yes opencv-python opencv-python-headless \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps opencv-python-headless

ENV PATH=/opt/venv/bin:$PATH AUTHFACE_CACHE=/data/.authface-cache
WORKDIR /data
ENTRYPOINT ["authface"]
CMD ["--help"]
