"""Settings reach the parts they are meant for."""

from pathlib import Path

from consumer.adapters.registries import Credentials
from consumer.settings import load
from consumer.wiring import registry_logins, spec_defaults


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
