from pathlib import Path

import pytest

from pouw.config import Settings, merge, read_settings
from pouw.errors import ConfigError

ARENA = "0x5FbDB2315678afecb367f032d93F642f64180aa3"


def test_merge__flag_environment_and_file__flag_wins_then_environment() -> None:
    settings = merge(
        {"rpc": "http://flag"},
        {"rpc": "http://environment", "confirmations": "7"},
        {"rpc": "http://file", "confirmations": 9, "from_block": 3},
    )

    assert settings.rpc == "http://flag"
    assert settings.confirmations == 7
    assert settings.from_block == 3


def test_merge__absent_flag__does_not_hide_the_others() -> None:
    assert merge({"rpc": None}, {"rpc": "http://environment"}, {}).rpc == "http://environment"


def test_merge__nothing_given__is_the_defaults() -> None:
    assert merge({}, {}, {}) == Settings()


def test_merge__unknown_name__is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'confirmation'"):
        merge({}, {}, {"confirmation": 1})


@pytest.mark.parametrize("value", ["-1", "two", True, 1.5])
def test_merge__senseless_confirmations__is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="confirmations"):
        merge({"confirmations": value}, {}, {})


@pytest.mark.parametrize("value", ["0x12", ARENA.replace("F", "f", 1), "0x" + "0" * 40])
def test_merge__arena_that_is_no_address__is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="arena"):
        merge({"arena": value}, {}, {})


def test_merge__arena_in_lower_case__gets_its_checksum() -> None:
    assert merge({"arena": ARENA.lower()}, {}, {}).arena == ARENA


def test_merge__rpc_that_is_no_url__is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError) as caught:
        merge({"rpc": "key-that-nobody-should-see"}, {}, {})

    assert "key-that-nobody-should-see" not in str(caught.value)


def test_settings__shown__hide_password_and_endpoint() -> None:
    shown = repr(Settings(rpc="https://node/secret-key", password="correct horse"))

    assert "correct horse" not in shown
    assert "secret-key" not in shown


def test_read_settings__secret_in_a_file__is_read_without_its_line_break(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse\n")

    settings = read_settings({}, {"POUW_PASSWORD_FILE": str(tmp_path / "secret")}, tmp_path)

    assert settings.password == "correct horse"


def test_read_settings__variable_twice__is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both set"):
        read_settings({}, {"POUW_PASSWORD": "a", "POUW_PASSWORD_FILE": "b"}, tmp_path)


def test_read_settings__file_in_the_folder__is_found_and_its_paths_start_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "secret").write_text("correct horse")
    (tmp_path / "pouw.toml").write_text(
        f'arena = "{ARENA}"\nstore = "store"\nhome = "/elsewhere"\npassword_file = "secret"\n'
    )

    settings = read_settings({}, {}, tmp_path)

    assert settings.arena == ARENA
    assert settings.store == (str(tmp_path / "store"),)
    assert settings.home == Path("/elsewhere")
    assert settings.password == "correct horse"


def test_read_settings__named_file__replaces_the_default_one(tmp_path: Path) -> None:
    (tmp_path / "pouw.toml").write_text("confirmations = 1\n")
    (tmp_path / "other.toml").write_text("confirmations = 5\n")

    assert read_settings({"config": "other.toml"}, {}, tmp_path).confirmations == 5
    assert read_settings({}, {"POUW_CONFIG": "other.toml"}, tmp_path).confirmations == 5


def test_read_settings__password_in_the_file__is_refused(tmp_path: Path) -> None:
    (tmp_path / "pouw.toml").write_text('password = "correct horse"\n')

    with pytest.raises(ConfigError, match="in the clear"):
        read_settings({}, {}, tmp_path)


@pytest.mark.parametrize("text", ["rpc = ", "confirmations = -1", "unknown = 1"])
def test_read_settings__broken_file__says_what_is_wrong(tmp_path: Path, text: str) -> None:
    (tmp_path / "pouw.toml").write_text(text)

    with pytest.raises(ConfigError):
        read_settings({}, {}, tmp_path)


def test_read_settings__missing_named_file__is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        read_settings({"config": "none.toml"}, {}, tmp_path)


def test_store__places_with_commas__are_taken_apart_and_only_folders_move(tmp_path: Path) -> None:
    text = "content, ipfs:/ip4/127.0.0.1/tcp/5001,https://one.example"
    (tmp_path / "pouw.toml").write_text(f'store = "{text}"\n')
    places = ("ipfs:/ip4/127.0.0.1/tcp/5001", "https://one.example")

    assert read_settings({}, {}, tmp_path).store == (str(tmp_path / "content"), *places)
    assert read_settings({"store": text}, {}, tmp_path).store == ("content", *places)
    assert read_settings({}, {"POUW_STORE": "a,b"}, tmp_path).store == ("a", "b")


def test_store__list_in_the_file__may_name_a_folder_with_a_comma(tmp_path: Path) -> None:
    (tmp_path / "pouw.toml").write_text('store = ["one, two", "https://one.example"]\n')

    assert read_settings({}, {}, tmp_path).store == (
        str(tmp_path / "one, two"),
        "https://one.example",
    )


@pytest.mark.parametrize("value", ["", "a,,b", ",a", "a,"])
def test_store__place_without_a_name__is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="store"):
        merge({"store": value}, {}, {})
