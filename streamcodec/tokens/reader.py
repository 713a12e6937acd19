"""Read a folder of tokens: file by file, codes and what they were made of, and back to sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streamcodec.codec import Codec
from streamcodec.engine import Float32
from streamcodec.errors import TokensError, WrongModel
from streamcodec.tokens.job import INDEX_NAME, JOB_NAME, TokenJob, read_json
from streamcodec.tokens.shards import ShardSummary, Skipped, TokenFile, read_shard, read_summary


class TokenDataset:
    """A finished folder of tokens; iterating gives `TokenFile`s, in the order of their paths.

    Parameters
    ----------
    folder : Path
        OUT_DIR of `streamcodec tokenize`.
    job : TokenJob
        How it was made.
    shards : sequence of Path
        Its files.
    rows : sequence of int
        Sound files in each.
    skipped : tuple of Skipped
        Sound files without codes.
    incomplete : tuple of Skipped
        Sound files with codes that were not read whole or are not as their headers say.
    """

    def __init__(
        self,
        folder: Path,
        job: TokenJob,
        shards: list[Path],
        rows: list[int],
        skipped: tuple[Skipped, ...],
        incomplete: tuple[Skipped, ...] = (),
    ) -> None:
        self.folder, self.job, self.shards, self.rows = folder, job, shards, rows
        self.skipped, self.incomplete = skipped, incomplete

    @classmethod
    def open(cls, folder: Path | str) -> TokenDataset:
        """Open a folder by its index.

        Raises
        ------
        TokensError
            No folder of tokens, not finished, damaged, or of another version.
        """
        root = Path(folder)
        place = root / INDEX_NAME
        if not place.is_file():
            begun = (root / JOB_NAME).is_file()
            hint = "it is not finished; run `streamcodec tokenize` again" if begun else "it is no folder of tokens"
            raise TokensError(f"{root} has no {INDEX_NAME}: {hint}")
        index = read_json(place)
        job = TokenJob.from_dict(index, place)
        try:
            shards = [(root / str(item["file"]), int(item["rows"])) for item in index["shards"]]
            skipped, incomplete = (
                tuple(Skipped(item["path"], item["reason"]) for item in items)
                for items in (index["skipped"], index.get("incomplete", ()))
            )
        except (KeyError, TypeError, ValueError) as error:
            raise TokensError(f"{place} is damaged: {type(error).__name__} {error}") from None
        return cls(root, job, [path for path, _ in shards], [rows for _, rows in shards], skipped, incomplete)

    def __len__(self) -> int:
        """Sound files."""
        return sum(self.rows)

    def __iter__(self) -> Iterator[TokenFile]:
        """All files."""
        for number in range(len(self.shards)):
            yield from self.read_shard(number)

    def read_shard(self, number: int) -> Iterator[TokenFile]:
        """Files of one shard, so that several readers can share the work.

        Raises
        ------
        TokensError
            It is missing, damaged, or of another job.
        """
        path = self.shards[number]
        summary: ShardSummary | None = read_summary(path)
        if summary is None:
            raise TokensError(f"{path} cannot be read; run `streamcodec tokenize` again to make it anew")
        if (summary.job_id, summary.shard) != (self.job.job_id, number):
            raise TokensError(f"{path} belongs to another folder of tokens, or to another place in this one")
        yield from read_shard(path, self.job.n_codebooks)

    def decode(self, file: TokenFile, codec: Codec) -> Float32:
        """Sound float32 [n_samples] of one file, mono at the model's rate.

        Raises
        ------
        WrongModel
            The codec has other weights than those that the codes are for.
        """
        if codec.model_id.hex() != self.job.model_id:
            raise WrongModel(
                f"{self.folder} is for the model {self.job.config['name']} with id {self.job.model_id}; "
                f"the weights loaded have id {codec.model_id.hex()}"
            )
        return codec.detokenize(file.codes.T)[: file.n_samples]
