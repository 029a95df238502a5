# syntax=docker/dockerfile:1
# Two images of the same server:  docker build --target cpu -t hark:cpu .     docker build --target gpu -t hark:gpu .

ARG CUDA=13.0.1

# --- cpu: torch without CUDA ------------------------------------------------------------------------------------------

FROM python:3.11-slim-bookworm AS cpu-build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/hark
ENV PATH=/opt/hark/bin:$PATH
WORKDIR /src
COPY .ci/constraints.txt .ci/constraints.txt
RUN pip install --no-deps --index-url https://download.pytorch.org/whl/cpu \
        "$(sed -n 's/^\(torch==.*\)/\1+cpu/p' .ci/constraints.txt)"
# The dependencies first, with empty packages, so that a change of our code does not install them again.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir model server export loadtest && pip install --constraint .ci/constraints.txt ".[cpu,otel]"
COPY model model
COPY server server
COPY export export
COPY loadtest loadtest
RUN pip install --no-deps --force-reinstall .

FROM python:3.11-slim-bookworm AS cpu
COPY --from=cpu-build /opt/hark /opt/hark
ENV PATH=/opt/hark/bin:$PATH PYTHONUNBUFFERED=1 \
    HARK_HOST=0.0.0.0 HARK_PORT=8000 HARK_LOG_FORMAT=json \
    HARK_CACHE=/cache HF_HOME=/cache/huggingface NUMBA_CACHE_DIR=/cache/numba
RUN useradd --uid 10001 --create-home hark && mkdir /models /cache && chown hark /models /cache
USER hark
WORKDIR /models
VOLUME ["/models", "/cache"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["hark"]
CMD ["serve"]

# --- gpu: torch with CUDA, and Mamba's own CUDA kernels ---------------------------------------------------------------

# The toolkit's CUDA must be the one that torch was built with, or mamba-ssm refuses to compile.
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS gpu-build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv python3-dev build-essential \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/hark
ENV PATH=/opt/hark/bin:$PATH
WORKDIR /src
COPY .ci/constraints.txt .ci/constraints.txt
RUN pip install --constraint .ci/constraints.txt setuptools wheel ninja packaging torch
# No wheels of these exist for this torch, so nvcc compiles them. Without the first variable newer releases of mamba-ssm
# leave out the scan that AuM and SSAM need (state-spaces/mamba#977).
ARG MAX_JOBS=4
RUN MAMBA_KEEP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE MAX_JOBS=${MAX_JOBS} \
    pip install --no-build-isolation --constraint .ci/constraints.txt causal-conv1d mamba-ssm \
    && python -c "import torch, causal_conv1d_cuda, selective_scan_cuda"
COPY pyproject.toml README.md LICENSE ./
RUN mkdir model server export loadtest && pip install --constraint .ci/constraints.txt ".[gpu,otel]"
COPY model model
COPY server server
COPY export export
COPY loadtest loadtest
RUN pip install --no-deps --force-reinstall .

FROM nvidia/cuda:${CUDA}-base-ubuntu24.04 AS gpu
# Triton compiles a small launcher in C for each kernel on its first run.
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 python3-dev gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=gpu-build /opt/hark /opt/hark
ENV PATH=/opt/hark/bin:$PATH PYTHONUNBUFFERED=1 \
    HARK_HOST=0.0.0.0 HARK_PORT=8000 HARK_LOG_FORMAT=json \
    HARK_CACHE=/cache HF_HOME=/cache/huggingface NUMBA_CACHE_DIR=/cache/numba TRITON_CACHE_DIR=/cache/triton \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --uid 10001 --create-home hark && mkdir /models /cache && chown hark /models /cache
USER hark
WORKDIR /models
VOLUME ["/models", "/cache"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=180s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["hark"]
CMD ["serve"]
