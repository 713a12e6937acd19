import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamcodec.architecture import footprint
from streamcodec.cli import main
from streamcodec.cli.loopback import sample_path
from streamcodec.config import PRESETS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", README, re.S | re.M).group(1)


def indented(heading: str) -> list[str]:
    return re.findall(r"^ {4}(\S.*)$", section(heading), re.M)


def test_the_ten_lines_of_python_run():
    code = re.search(r"```python\n(.*?)```", section("In ten lines of Python"), re.S).group(1)
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names["packet"]) == 10
    assert names["heard"].shape == (320,)
    assert names["codes"].shape == (12, 75)
    assert names["waveform"].shape == (24_000,)


def test_the_command_lines_run(tmp_path, monkeypatch):
    shutil.copy(sample_path(), tmp_path / "speech.wav")
    monkeypatch.chdir(tmp_path)
    lines = indented("On the command line")
    assert len(lines) >= 4
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "streamcodec"
        fast = ["--fast"] if words[1] == "loopback" else []
        result = CliRunner().invoke(main, words[1:] + fast)
        assert result.exit_code == 0, f"{line}: {result.output}"


def test_there_is_one_command_to_hear_it_and_one_to_test_it():
    assert len(indented("Hear it")) == 1
    assert indented("Hear it")[0].endswith("streamcodec loopback --output out.wav")
    assert len(indented("Run the tests")) == 1


@pytest.mark.parametrize("name", ["tiny-24k", "base-24k"])
def test_the_table_of_presets_is_true(name):
    row = next(line for line in section("Presets").splitlines() if f"`{name}`" in line)
    config, cost = PRESETS[name], footprint(PRESETS[name])
    assert f"{cost.weights / 1e6:.1f} M" in row
    gmac = (cost.encoder_macs_per_s + cost.decoder_macs_per_s) / 1e9
    assert f"{gmac:.2g}" in row
    assert f"{1000 / config.frame_rate_hz:.1f} ms" in row
    assert f"{config.bitrate_step_bps / 1000:g} to {config.max_bitrate_bps / 1000:g} kbps" in row
