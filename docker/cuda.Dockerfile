# Galley on NVIDIA GPUs: docker build -f docker/cuda.Dockerfile -t galley:cuda .
# Run it with --gpus all: the container toolkit brings the driver's library, the CUDA runtime is in the binary.
FROM debian:12-slim AS build
WORKDIR /src
COPY deploy/packages.sh deploy/packages.sh
RUN . deploy/packages.sh && ensure_packages $BUILD_PACKAGES python3-venv
COPY tests/simt/requirements.txt tests/simt/requirements.txt
RUN python3 -m venv /nvcc && /nvcc/bin/pip install --no-cache-dir -r tests/simt/requirements.txt
COPY . .
RUN export VIRTUAL_ENV=/nvcc \
    && meson setup /build --buildtype=release --prefix=/usr --sysconfdir=/etc -Dcuda=enabled -Dtests=disabled \
    && DESTDIR=/install meson install -C /build --strip --tags runtime \
    && docker/rootfs.sh /install /rootfs

FROM scratch
COPY --from=build /rootfs /
USER 65532:65532
ENV GALLEY_HOST=0.0.0.0 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m CMD ["/usr/bin/galley", "health"]
ENTRYPOINT ["/usr/bin/galley"]
CMD ["serve"]
