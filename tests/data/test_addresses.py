"""Files behind http addresses, of a server on this machine."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import lme4py
from lme4py.data.sources import find_source
from lme4py.errors import DataError

pytest.importorskip("aiohttp")
pytest.importorskip("fsspec")
feather = pytest.importorskip("pyarrow.feather")
pa = pytest.importorskip("pyarrow")

FORMULA = "y ~ x + (1 | g)"


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    g = rng.integers(0, 20, 400)
    y = rng.normal(size=20)[g] + rng.normal(size=400)
    return pd.DataFrame({"y": y, "x": rng.normal(size=400), "g": [f"g{i}" for i in g]})


DATA = rows()


class Whole(SimpleHTTPRequestHandler):
    """Sends files as a whole."""

    def log_message(self, *args: Any) -> None:
        """Not to the screen."""

    def send_head(self) -> Any:
        if "forbidden" in self.path:
            self.send_error(403)
            return None
        return super().send_head()


class Pieces(Whole):
    """Sends pieces of files, and a digest of each."""

    def end_headers(self) -> None:
        path = self.translate_path(self.path)
        if os.path.isfile(path):
            self.send_header("ETag", hashlib.md5(Path(path).read_bytes()).hexdigest())
        super().end_headers()

    def do_GET(self) -> None:
        wanted, path = self.headers.get("Range"), self.translate_path(self.path)
        if wanted is None or not os.path.isfile(path):
            super().do_GET()
            return
        content = Path(path).read_bytes()
        first, last = (int(end) for end in wanted.removeprefix("bytes=").split("-"))
        piece = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(piece) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(piece)))
        self.end_headers()
        self.wfile.write(piece)


def serve(folder: Path, handler: type[Whole]) -> Iterator[str]:
    for number, part in enumerate((DATA.iloc[:150], DATA.iloc[150:])):
        part.to_parquet(folder / f"p{number}.parquet")
        part.to_csv(folder / f"p{number}.csv", index=False)
        feather.write_feather(pa.Table.from_pandas(part, preserve_index=False), str(folder / f"p{number}.feather"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[str]:
    yield from serve(tmp_path, Pieces)


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[str]:
    yield from serve(tmp_path, Whole)


@pytest.mark.parametrize("names", ["p*.parquet", ["p1.feather", "p0.feather"], "p*.csv"])
def test_files_of_a_server(pieces: str, names: Any) -> None:
    files = pieces + names if isinstance(names, str) else [pieces + name for name in names]
    fit = lme4py.lmer(FORMULA, files)
    # Sums in another order.
    assert_allclose(fit.params, lme4py.lmer(FORMULA, DATA).params, rtol=1e-9)
    assert fit.n_obs == 400


def test_a_server_without_pieces(whole: str) -> None:
    """Small text is read at once; what is read in pieces is refused."""
    assert lme4py.lmer(FORMULA, whole + "p*.csv").n_obs == 400
    for name in ("p0.parquet", "p0.feather"):
        with pytest.raises(DataError, match=r"its server sends files only as a whole .* download them"):
            lme4py.lmer(FORMULA, whole.replace("//", "//me:SECRET@") + name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.parquet", "nothing is there; check the address"),
        ("forbidden.parquet", "403|nothing is there"),
    ],
)
def test_addresses_that_cannot_be_opened(whole: str, name: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        lme4py.lmer(FORMULA, whole.replace("//", "//me:SECRET@") + name + "?key=SECRET")
    assert "SECRET" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(DataError, match="cannot be opened") as caught:
        lme4py.lmer(FORMULA, "http://me:SECRET@127.0.0.1:9/p0.parquet")
    assert "SECRET" not in str(caught.value)


def test_files_that_change(pieces: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same size and time."""
    from lme4py.fits.linear import streamed

    file = tmp_path / "p0.csv"
    times = file.stat().st_mtime_ns
    source = find_source(pieces + "p*.csv")[1]
    assert source is not None
    before, plan = source.fingerprint(), streamed.plan_stream

    def changing(*args: Any, **options: Any) -> Any:
        found = plan(*args, **options)
        file.write_text(file.read_text().replace("1", "2"))
        os.utime(file, ns=(times, times))
        return found

    monkeypatch.setattr(streamed, "plan_stream", changing)
    with pytest.raises(DataError, match="the source changed while it was read"):
        lme4py.lmer(FORMULA, pieces + "p*.csv")
    assert source.fingerprint() != before
    file.unlink()
    assert source.fingerprint() != before
