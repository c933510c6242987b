"""Images that a registry would have, and the consumer's, built as a user builds it.

The servers' images take the variables and folders that the official ones do.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from deploy.lab import debian, mirror
from deploy.lab.docker_cli import DockerCli
from deploy.lab.packages import package_of
from deploy.lab.registry import registry
from deploy.lab.servers import DockerHost

BASE: Final = "landlord-test/python:1"
CONSUMER: Final = "landlord-test/consumer:1"
RABBITMQ: Final = "landlord-test/rabbitmq:1"
PROMETHEUS: Final = "landlord-test/prometheus:1"
DIND: Final = "landlord-test/dind:1"
_SERVERS: Final = "landlord-test/servers:1"

_RABBITMQ: Final = """
RUN mkdir -p /etc/rabbitmq && echo '[rabbitmq_management].' > /etc/rabbitmq/enabled_plugins
ENV HOME=/var/lib/rabbitmq LANG=C.UTF-8 PATH=/usr/lib/rabbitmq/bin:/usr/bin:/bin
CMD ["rabbitmq-server"]
"""
_PROMETHEUS: Final = """
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
"""
_CERTIFIED_ENGINE: Final = """
set -eu
cd "$DOCKER_TLS_CERTDIR"
new="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $new -subj /CN=authority -keyout key.pem -out ca.pem
echo "subjectAltName = DNS:$(cat /etc/hostname)" > server.cnf
echo "extendedKeyUsage = clientAuth" > client.cnf
for side in server client; do
    mkdir -p $side
    openssl req $new -subj /CN=$side -keyout $side/key.pem -out $side.csr
    openssl x509 -req -in $side.csr -CA ca.pem -CAkey key.pem -CAcreateserial \\
        -extfile $side.cnf -out $side/cert.pem
    cp ca.pem $side/ca.pem
done
chmod 644 client/key.pem
exec dockerd -H unix:///var/run/docker.sock -H tcp://0.0.0.0:2376 --tlsverify \\
    --tlscacert server/ca.pem --tlscert server/cert.pem --tlskey server/key.pem
"""
_DIND: Final = f"""
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin
CMD {json.dumps(["/bin/sh", "-c", _CERTIFIED_ENGINE])}
"""
_ROOT: Final = Path(__file__).parents[2]
_SECONDS: Final = 600.0


def build_consumer(host: DockerHost, folder: Path) -> None:
    """Build it from `deploy/Dockerfile`; the folder is for the packages it takes.

    Only the base, named by its digest, and where packages come from differ from what a user has.
    """
    docker = DockerCli(host.url)
    with ThreadPoolExecutor(1) as thread:
        filling = thread.submit(mirror.fill, folder)
        import_debian(docker, BASE, "python3-venv")
        filling.result()
    with mirror.serve(folder, host.listen()) as index, registry(host) as address:
        base = _by_digest(docker, BASE, f"{address}/python")
        docker.run(
            *("build", "-q", "-f", str(_ROOT / "deploy" / "Dockerfile"), "-t", CONSUMER),
            *("--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"INDEX_URL={index}"),
            *("--network", "host", str(_ROOT)),
            seconds=_SECONDS,
        )


def _by_digest(docker: DockerCli, image: str, name: str) -> str:
    """Push the image under the name; return that with its digest."""
    docker.run("tag", image, name)
    docker.run("push", "-q", name, seconds=_SECONDS)
    (digest,) = docker.run("inspect", "-f", '{{join .RepoDigests "\\n"}}', name).split()
    docker.run("rmi", name)
    return digest


def import_debian(docker: DockerCli, name: str, *packages: str) -> None:
    """Make an image of these Debian packages."""
    docker.run("import", "-", name, stdin=debian.root_archive(packages), seconds=_SECONDS)


def import_servers(host: DockerHost) -> None:
    """Make images of RabbitMQ, Prometheus and an engine that are used as the official ones are."""
    docker = DockerCli(host.url)
    engine = {package_of("dockerd"), package_of("docker")}
    import_debian(docker, _SERVERS, "rabbitmq-server", "prometheus", *engine, "openssl")
    for name, lines in ((RABBITMQ, _RABBITMQ), (PROMETHEUS, _PROMETHEUS), (DIND, _DIND)):
        docker.run("build", "-q", "-t", name, "-", stdin=f"FROM {_SERVERS}\n{lines}".encode())
