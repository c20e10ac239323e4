# An HTTP server of one exported file on a CPU, without Python: embed/cpp with OpenVINO.
#
#   docker build -f docker/cpu.Dockerfile -t tinyres-serve .
#   docker run --rm -p 8080:8080 -v "$PWD/runs/mine/export:/models:ro" tinyres-serve /models/fp32.onnx
#
# docs/install.md has the rest. Debian's packages have no versions: a point release drops the ones before it. Its own
# ONNX Runtime, of 13, complains of each operator it knows at each start.
FROM debian:13.8-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ libcpp-httplib-dev libstb-dev libturbojpeg0-dev make \
        nlohmann-json3-dev pkg-config python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /
RUN pip install --no-cache-dir --no-deps --target /opt --constraint /constraints.txt openvino
COPY embed/cpp /source
RUN cmake -S /source -B /build -DBACKEND=openvino -DOpenVINO_DIR=/opt/openvino/cmake \
    && cmake --build /build --parallel 2
WORKDIR /opt/openvino/libs
RUN mkdir /libs \
    && cp libopenvino.so.* libopenvino_onnx_frontend.so.* libopenvino_*_cpu_plugin.so libtbb.so.* libtbbbind*.so.* \
        libhwloc.so.* /libs

FROM debian:13.8-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libcpp-httplib0.18 libturbojpeg0 \
    && rm -rf /var/lib/apt/lists/*
# Where the programs were linked to them.
COPY --from=build /libs /opt/openvino/libs
COPY --from=build /build/serve /build/classify /usr/local/bin/
# It writes nothing and owns nothing, so any number will do; --read-only and --cap-drop ALL hold too.
USER 65532:65532
EXPOSE 8080
# bash asks by itself: a client for HTTP would be one more package.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '\"ok\"' <&3"]
ENTRYPOINT ["serve", "--host", "0.0.0.0", "--port", "8080"]
CMD ["/models/fp32.onnx"]
