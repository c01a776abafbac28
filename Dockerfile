# The serving image: a bundle in, answers over HTTP out. No training packages are in it.
#
#   docker build -t penstock-serve .
#   docker run --rm -p 8080:8080 -v "$PWD/store/bundles/0123456789abcdef:/bundle:ro" penstock-serve
#
# With a bearer token:  docker run -e TOKEN=… … penstock-serve --token-env TOKEN
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_WAIT_POLICY=passive

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY penstock ./penstock
RUN pip install --constraint constraints.txt '.[serve]' \
    && rm -rf /app/* \
    && useradd --create-home --uid 10001 penstock

USER penstock
WORKDIR /home/penstock
VOLUME ["/bundle"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/v2/health/ready', timeout=2)"]
# exec form: SIGTERM reaches the server, which answers what is in flight and then stops.
ENTRYPOINT ["penstock", "serve", "/bundle", "--host", "0.0.0.0", "--port", "8080"]
