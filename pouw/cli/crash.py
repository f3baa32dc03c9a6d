"""A bug of ours leaves a file for its report; the user sees one line."""

from __future__ import annotations

import datetime
import sys
import traceback
from pathlib import Path


def write_traceback(error: BaseException, home: Path) -> Path:
    """Keep the traceback of a bug in a file, for a report; its path."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
    text = "".join(traceback.format_exception(error))
    for folder in (home, Path.cwd()):
        file = folder / f"crash-{stamp}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        except OSError:
            continue
        return file
    sys.stderr.write(text)
    return Path("the lines above")
