# cyclegan-cli for batch work on CPUs:
#   docker build -t cyclegan .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" cyclegan translate photos/ -o out/
FROM python:3.12-slim

# torch and torchvision from the CPU index are a tenth of the size of those with CUDA.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch>=2.8,<2.15" "torchvision>=0.23,<0.30"

COPY pyproject.toml README.md LICENSE /build/
COPY docs/man /build/docs/man
COPY src /build/src
RUN pip install --no-cache-dir "/build[heif,video]" && rm -rf /build

# Whoever runs it owns what it writes; nothing needs root, or a home that exists.
RUN useradd --create-home cyclegan
USER cyclegan
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["cyclegan"]
CMD ["--help"]
