"""Settings reach the parts they are meant for."""

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from consumer.adapters.registries import Credentials
from consumer.errors import SettingsError
from consumer.settings import load
from consumer.wiring import check_broker_tls, docker_board, registry_logins, spec_defaults


def test_logins_are_read_where_the_settings_say(tmp_path: Path) -> None:
    """A registry with a login of its own, and Docker's file for all others."""
    (tmp_path / "password").write_text("theirs")
    (tmp_path / "config.json").write_text('{"auths": {"quay.io": {"auth": "cGVyc29uOm91cnM="}}}')
    settings_file = tmp_path / "settings.yaml"
    settings_file.write_text(f"""
        compute:
          docker:
            registries:
              registry.example:5000: {{username: robot, password_file: {tmp_path}/password}}
              docker_config: {tmp_path}/config.json
    """)

    logins = registry_logins(load(settings_file, {}))

    assert logins.find("registry.example:5000") == Credentials("robot", "theirs")
    assert logins.find("quay.io") == Credentials("person", "ours")
    assert logins.find("docker.io") is None


def test_without_a_setting_there_is_no_login() -> None:
    """Nothing of the surroundings is read."""
    assert registry_logins(load(Path("/dev/null"), {})).find("docker.io") is None


def test_a_default_that_nobody_set_stays_below_the_ceiling() -> None:
    """A tenant that sets no limits gets the most it may have, instead of a refusal."""
    environ = {
        "LANDLORD_COMPUTE__POLICY__MAX_CPU": "500",
        "LANDLORD_COMPUTE__POLICY__MAX_MEMORY": "64",
    }

    defaults = spec_defaults(load(Path("/dev/null"), environ))

    assert (defaults.cpu, defaults.memory) == (500, 64)


# --- the engine's certificates ----------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a CA, a certificate and its key, and another certificate's key."""
    authority = trustme.CA()
    pair, other = authority.issue_cert("consumer"), authority.issue_cert("other")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    other.private_key_pem.write_to_path(tmp_path / "other.pem")
    key = serialization.load_pem_private_key(pair.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hush"),
    )
    (tmp_path / "locked.pem").write_bytes(locked)
    (tmp_path / "text.pem").write_text("no certificate\n")
    return tmp_path


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        pytest.param({"ca": "text"}, "ca: {}/text.pem cannot be used: ", id="no certificate"),
        pytest.param(
            {"cert": "cert", "key": "other"},
            "cert: {}/cert.pem cannot be used with the key {}/other.pem: key values mismatch",
            id="not a pair",
        ),
        pytest.param(
            {"cert": "text", "key": "key"},
            "cert: {}/text.pem cannot be used with the key {}/key.pem: ",
            id="no certificate of ours",
        ),
        pytest.param(
            {"cert": "cert", "key": "locked"},
            "key: {1}/locked.pem has a passphrase",
            id="passphrase",
        ),
    ],
)
def test_a_file_that_is_no_certificate_is_told_by_its_setting(
    folder: Path, files: dict[str, str], fault: str
) -> None:
    """Before engine or broker are asked for anything, and without waiting for a passphrase."""
    variables = {
        f"LANDLORD_COMPUTE__DOCKER__TLS__{key.upper()}": f"{folder}/{name}.pem"
        for key, name in files.items()
    }
    settings = load(Path("/dev/null"), {"DOCKER_HOST": "tcp://engine:2376", **variables})

    with pytest.raises(SettingsError) as refused:
        docker_board(settings)

    assert str(refused.value).startswith(f"compute.docker.tls.{fault.format(folder, folder)}")
    broker = {name.replace("COMPUTE__DOCKER", "BROKER"): it for name, it in variables.items()}
    url = {"LANDLORD_BROKER__URL": "amqps://u:p@broker/"}
    with pytest.raises(SettingsError) as refused:
        check_broker_tls(load(Path("/dev/null"), broker | url))
    assert str(refused.value).startswith(f"broker.tls.{fault.format(folder, folder)}")


def test_good_files_are_taken(folder: Path) -> None:
    """A CA and a certificate with its key, from Docker's own folder."""
    environ = {"DOCKER_HOST": "tcp://engine:2376", "DOCKER_CERT_PATH": str(folder)}

    assert docker_board(load(Path("/dev/null"), environ)).place
