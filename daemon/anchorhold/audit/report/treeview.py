"""The tree of folders as nested ``<details>``, in a bounded number of rows.

Constraint: 100,000 files must fit in a page that a phone opens. So each folder shows the files that were
shown most often, as many as the page has room for, and says how many more there are.
"""

from __future__ import annotations

from anchorhold.audit.report.text import count, name, number, size, when
from anchorhold.audit.report.tree import File, Folder, Tree

ROWS = 4_000
FOLDERS = 1_200
OPEN_ROWS = 60
"""A tree of no more rows than this is open all the way."""

_PER_FOLDER = (200, 100, 50, 25, 12, 6, 3, 1)
_BELOW = (400, 100, 50, 25, 12, 6)

COLUMNS = (
    "<div class='row head'><span>Name</span><span>Shown</span><span>First and last time (UTC)</span>"
    "<span>Size</span><span>Digest</span></div>"
)


class _View:
    def __init__(self, tree: Tree, rows: int, folders: int) -> None:
        self.below = next((most for most in _BELOW if _folders(tree.root, most) <= folders), _BELOW[-1])
        self.files = next(
            (most for most in _PER_FOLDER if _rows(tree.root, most, self.below) <= rows), _PER_FOLDER[-1]
        )
        self.all_open = _rows(tree.root, self.files, self.below) <= OPEN_ROWS
        self.rows_left = rows
        self.folders_left = folders
        self.parts: list[str] = []

    def folder(self, folder: Folder, depth: int) -> None:
        """What is in a folder, below its summary."""
        below = _sorted_folders(folder)
        most = self.below if self.folders_left > 0 else 0
        for label, one in below[:most]:
            self._one(label, one, depth)
        left_out = below[most:]
        if left_out:
            files = sum(one.all_files for _, one in left_out)
            self.parts.append(
                f"<p class=rest>and {count(len(left_out), 'more folder')} with {count(files, 'file')}</p>"
            )
        self._files(folder)

    def _one(self, label: str, folder: Folder, depth: int) -> None:
        while len(folder.folders) == 1 and not folder.files and not folder.listed and not folder.uncounted:
            ((under, folder),) = folder.folders.items()
            label = f"{label}/{under}"
        self.folders_left -= 1
        opened = " open" if depth == 0 or self.all_open else ""
        listed = f" · names listed {number(folder.listed)}×" if folder.listed else ""
        at_least = "at least " if folder.uncounted else ""
        self.parts.append(
            f"<details{opened}><summary>{name(label + '/')}<span>{at_least}{count(folder.all_files, 'file')}"
            f" · shown {number(folder.all_times)}×{listed}</span></summary><div class=in>"
        )
        self.folder(folder, depth + 1)
        self.parts.append("</div></details>")

    def _files(self, folder: Folder) -> None:
        if not folder.files and not folder.uncounted:
            return
        files = sorted(folder.files.items(), key=lambda item: (-item[1].times, item[0]))
        most = min(self.files, max(0, self.rows_left))
        self.rows_left -= min(most, len(files))
        self.parts += [file_row(name(label), file) for label, file in files[:most]]
        left_out = files[most:]
        if left_out:
            times = sum(file.times for _, file in left_out)
            self.parts.append(
                f"<p class=rest>and {number(len(left_out))} more, shown {count(times, 'time')}</p>"
            )
        if folder.uncounted:
            self.parts.append(
                f"<p class=rest>and more files, shown {count(folder.uncounted, 'time')}, that this report does"
                " not tell apart</p>"
            )


def _sorted_folders(folder: Folder) -> list[tuple[str, Folder]]:
    return sorted(folder.folders.items(), key=lambda item: (-item[1].all_times, item[0]))


def _folders(folder: Folder, below: int) -> int:
    return 1 + sum(_folders(one, below) for _, one in _sorted_folders(folder)[:below])


def _rows(folder: Folder, files: int, below: int) -> int:
    return min(len(folder.files), files) + sum(
        _rows(one, files, below) for _, one in _sorted_folders(folder)[:below]
    )


def file_row(label: str, file: File) -> str:
    """One file. ``label`` is HTML."""
    first, last = when(file.first + ":00"), when(file.last + ":00")
    span = first if first == last else f"{first} – {last}"
    changed = f" <em>content changed {number(file.changes)}×</em>" if file.changes else ""
    digest = f"<code>{name(file.digest)}</code>" if file.digest else "<span class=wh>redacted</span>"
    return (
        f"<div class=row>{label}<span>{number(file.times)}×</span><span>{span}{changed}</span>"
        f"<span>{size(file.size)}</span>{digest}</div>"
    )


def draw(tree: Tree, *, rows: int = ROWS, folders: int = FOLDERS) -> str:
    """The tree in about so many rows and folders at most, and what has no place in it: text that was piped in, names that were redacted."""
    view = _View(tree, rows, folders)
    parts = view.parts
    parts.append(COLUMNS)
    view.folder(tree.root, 0)
    if tree.piped.times:
        parts.append(file_row("<i>text piped in (standard input)</i>", tree.piped))
    withheld = sorted(tree.redacted.items(), key=lambda item: (-item[1].times, item[0]))
    times = tree.nameless + sum(file.times for _, file in withheld)
    if times:
        some = f"{count(len(withheld), 'file')} · " if withheld else ""
        parts.append(
            f"<details{' open' if view.all_open and len(withheld) < OPEN_ROWS else ''}><summary>"
            f"<span class=wh>name redacted</span><span>{some}shown {number(times)}×</span></summary><div class=in>"
        )
        parts += [file_row("<span class=wh>name redacted</span>", file) for _, file in withheld[:200]]
        if len(withheld) > 200:
            parts.append(f"<p class=rest>and {number(len(withheld) - 200)} more</p>")
        if tree.nameless:
            parts.append(
                f"<p class=rest>{count(tree.nameless, 'time')} a file was shown whose name and digest are redacted</p>"
            )
        parts.append("</div></details>")
    return f"<div class=tree>{''.join(parts)}</div>"
