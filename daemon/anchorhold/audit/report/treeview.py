"""The tree of folders as nested ``<details>``, in a bounded number of rows.

Constraint: 100,000 files must fit in a page that a phone opens. So each folder shows the files that were
shown most often, as many as the page has room for, and says how many more there are.
"""

from __future__ import annotations

from anchorhold.audit.report.text import count, name, number, size, when
from anchorhold.audit.report.tree import File, Folder, Tree

ROWS = 8_000
FOLDERS = 6_000
BYTES = 3_000_000
"""Of HTML for a tree, however long the names are."""

OPEN_ROWS = 60
"""A tree of no more rows than this is open all the way."""

FEW = 8
"""The upper folders are open too where there are no more than so many beside them and in them."""

_PER_FOLDER = (200, 100, 50, 25, 12, 6, 3, 1)
_BELOW = (400, 200, 100, 50, 25, 12, 6, 3, 1)

COLUMNS = (
    "<div class='row head'><span>Name</span><span>Shown</span><span>First and last time (UTC)</span>"
    "<span>Size</span><span>Digest</span></div>"
)


class _View:
    def __init__(self, tree: Tree, rows: int, folders: int) -> None:
        self.kept: set[int] = set()  # ids of the folders that have a place
        with_files = self._choose(tree.root, folders)
        self.files = next((most for most in _PER_FOLDER if _rows(with_files, most) <= rows), 0)
        self.all_open = len(self.kept) + _rows(with_files, self.files) <= OPEN_ROWS
        self.bytes = 0
        self.parts: list[str] = []

    def _choose(self, root: Folder, budget: int) -> list[Folder]:
        """Half of the folders level by level, so that the top is seen whole if it can be; the other half
        where most was shown, so that files are seen however deep they lie. Returns what is kept."""
        chosen, level, left = [root], [root], budget // 2
        while level:
            most = next((m for m in _BELOW if sum(min(m, len(one.folders)) for one in level) <= left), 0)
            level = [below for folder in level for _, below in _sorted_folders(folder)[:most]]
            left -= len(level)
            chosen += level
        self.kept = set(map(id, chosen))
        candidates: list[tuple[int, int, list[Folder]]] = []
        _way_to_files(root, [], candidates)
        for _, _, way in sorted(candidates):
            missing = [folder for folder in way if id(folder) not in self.kept]
            if len(self.kept) + len(missing) > budget:
                break
            self.kept.update(map(id, missing))
            chosen += missing
        return chosen

    def add(self, html: str) -> None:
        """Put it on the page."""
        self.parts.append(html)
        self.bytes += len(html)

    def folder(self, folder: Folder, depth: int, *, few: bool = True) -> None:
        """What is in a folder, below its summary."""
        below = [one for one in _sorted_folders(folder) if id(one[1]) in self.kept]
        few = few and len(below) <= FEW
        if self.bytes > BYTES:
            below = []
        for label, one in below:
            self._one(label, one, depth, few)
        left_out = len(folder.folders) - len(below)
        if left_out:
            shown = {id(one) for _, one in below}
            files = sum(one.all_files for one in folder.folders.values() if id(one) not in shown)
            which = f"and {count(left_out, 'more folder')}" if below else count(left_out, "folder")
            self.add(f"<p class=rest>{which} with {count(files, 'file')}</p>")
        self._files(folder)

    def _one(self, label: str, folder: Folder, depth: int, few: bool) -> None:
        while len(folder.folders) == 1 and not folder.files and not folder.listed and not folder.uncounted:
            ((under, folder),) = folder.folders.items()
            label = f"{label}/{under}"
        short = few and depth <= 2 and len(folder.folders) + len(folder.files) <= FEW
        opened = " open" if depth == 0 or short or self.all_open else ""
        listed = f" · names listed {number(folder.listed)}×" if folder.listed else ""
        at_least = "at least " if folder.uncounted else ""
        self.add(
            f"<details{opened}><summary>{name(label + '/')}<span>{at_least}{count(folder.all_files, 'file')}"
            f" · shown {number(folder.all_times)}×{listed}</span></summary><div class=in>"
        )
        self.folder(folder, depth + 1, few=few)
        self.add("</div></details>")

    def _files(self, folder: Folder) -> None:
        if not folder.files and not folder.uncounted:
            return
        files = sorted(folder.files.items(), key=lambda item: (-item[1].times, item[0]))
        most = self.files if self.bytes < BYTES else 0
        for label, file in files[:most]:
            self.add(file_row(name(label), file))
        left_out = files[most:]
        if left_out:
            times = sum(file.times for _, file in left_out)
            which = f"and {number(len(left_out))} more" if most else count(len(left_out), "file")
            self.add(f"<p class=rest>{which}, shown {count(times, 'time')}</p>")
        if folder.uncounted:
            self.add(
                f"<p class=rest>and more files, shown {count(folder.uncounted, 'time')}, that this"
                " report does"
                " not tell apart</p>"
            )


def _rows(folders: list[Folder], most: int) -> int:
    return sum(min(len(folder.files), most) for folder in folders)


def _way_to_files(folder: Folder, way: list[Folder], found: list[tuple[int, int, list[Folder]]]) -> None:
    """Every folder that holds files, most shown first when sorted, with the folders that lead to it."""
    way = [*way, folder]
    if folder.files:
        found.append((-sum(file.times for file in folder.files.values()), len(found), way))
    for _, below in _sorted_folders(folder):
        _way_to_files(below, way, found)


def _sorted_folders(folder: Folder) -> list[tuple[str, Folder]]:
    return sorted(folder.folders.items(), key=lambda item: (-item[1].all_times, item[0]))


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
    """The tree in so many rows and folders at most, with what has no place in it: piped text, redacted
    names."""
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
            f"<span class=wh>name redacted</span><span>{some}shown"
            f" {number(times)}×</span></summary><div class=in>"
        )
        parts += [file_row("<span class=wh>name redacted</span>", file) for _, file in withheld[:200]]
        if len(withheld) > 200:
            parts.append(f"<p class=rest>and {number(len(withheld) - 200)} more</p>")
        if tree.nameless:
            parts.append(
                f"<p class=rest>{count(tree.nameless, 'time')} a file was shown whose name and digest"
                " are redacted</p>"
            )
        parts.append("</div></details>")
    return f"<div class=tree>{''.join(parts)}</div>"
