import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from token_folder import good_folder

from streamcodec.cli import main
from streamcodec.tokens import TokenDataset

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs/tokenize.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the documented commands ran."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    folder = tmp_path_factory.mktemp("place")
    good_folder(folder / "my_audio")
    text = (ROOT / "README.md").read_text(encoding="utf-8") + DOCUMENT
    commands = re.findall(r"^ {4}streamcodec (tokenize my_audio tokens .*)$", text, re.M)
    assert len(commands) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands:
            result = CliRunner().invoke(main, shlex.split(command))
            assert result.exit_code == 0, result.output
    return folder


def test_the_documented_reader_runs_on_what_the_documented_commands_made(place, monkeypatch):
    monkeypatch.chdir(place)
    names: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", DOCUMENT, re.S).group(1), names)
    assert names["waveform"].shape == (names["file"].n_samples,)
    assert names["tokens"].max() > 7 * 1024


def test_the_document_names_every_column_and_key(place):
    index = json.loads((place / "tokens/index.json").read_text())
    file = next(iter(TokenDataset.open(place / "tokens")))
    for name in (*index, *vars(file), *index["shards"][0]):
        assert f"`{name}`" in DOCUMENT
