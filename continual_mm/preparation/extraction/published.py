"""Lists of clips as published sets have them: their forms, and what their columns mean here."""

import json
import re
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from continual_mm.data.schema import CAPTIONS
from continual_mm.system.errors import InputError, Problem, Problems, first_few, suggestion

COLUMNS = ("id", "path", "start", "end", "text", "words", "split", "group", "label", "cloud")
"""Columns of a manifest; ``id``, ``path`` or ``text`` is enough."""

VIDEO_IDS = ("youtube_id", "youtubeid", "ytid", "video_id", "videoid")
"""Columns of names that a file bears without its ending, and perhaps with its times."""

_KNOWN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "path": ("file_name", "filename", "fname", "file_path", "filepath", "file", *VIDEO_IDS),
        "id": ("audiocap_id",),
        "start": ("start_time", "time_start", "start_seconds", "start_sec"),
        "end": ("end_time", "time_end", "end_seconds", "end_sec"),
        "text": (*CAPTIONS, "captions", "sentences", "raw_text", "encap", "category"),
        "split": ("subset",),
        "label": ("target",),
    }
)
"""Of our columns the names that others have for them, the best one first.

Clotho: file_name, caption_1 to caption_5, or fname, raw_text. AudioCaps: audiocap_id, youtube_id,
start_time, caption. ESC-50: filename, target, category. Kinetics: label, youtube_id, time_start,
time_end, split. MSVD: VideoID, Start, End, Description. MSR-VTT's test of 1,000 clips: video_id,
sentence. VATEX: videoID, enCap.
"""

_NUMBERED = re.compile(r"captions?_?\d+")  # caption_1 to caption_5, all of one recording
_AUDIOSET = 10.0  # seconds of every clip of AudioSet, and so of AudioCaps and VGGSound
_LISTS = ("captions", "raw_text", "sentences")  # columns of a table whose cells may be lists
_SHOWN = 20  # columns that are named
_UCF = re.compile(r"(?P<path>(?P<label>\w+)/(?P<group>v_\w+_g\d+)_c\d+\.\w+)(?: \d+)?")

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a list are read as which of ours."""

    names: tuple[str, ...]  # all that there are
    read: Mapping[str, tuple[str, ...]]  # ours -> theirs; more than one for text alone
    seconds: float | None = None  # that a clip lasts of which only the start is given

    @classmethod
    def of(
        cls, names: Sequence[str], given: Mapping[str, Sequence[str]], source: object
    ) -> "Columns":
        """By their names, or as ``given`` (ours -> theirs); nothing is read as ours of no name."""
        _check_given(given, names, f"{source}, --column")
        read = {ours: tuple(filter(None, theirs)) for ours, theirs in given.items()}
        taken = {name for theirs in read.values() for name in theirs}
        plain = {_plain(name): name for name in reversed(names) if name not in taken}
        captions = tuple(name for name in names if _NUMBERED.fullmatch(_plain(name)))
        for ours in COLUMNS:
            if ours not in read and ours in names and ours not in taken:
                read[ours] = (ours,)
        if "text" not in read and captions:
            read["text"] = captions
        taken = {name for theirs in read.values() for name in theirs}
        for ours in (one for one in COLUMNS if one not in read):
            known = (plain.get(key, "") for key in (ours, *_KNOWN.get(ours, ())))
            if name := next((one for one in known if one and one not in taken), ""):
                read[ours] = (name,)
                taken.add(name)
        seconds = _AUDIOSET if {"audiocap_id", VGGSOUND[0]} & set(names) else None
        return cls(tuple(names), {ours: mine for ours, mine in read.items() if mine}, seconds)

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns that are read as nothing."""
        used = {name for theirs in self.read.values() for name in theirs}
        return tuple(name for name in self.names if name not in used)

    @property
    def names_videos(self) -> bool:
        """Whether files are named by videos, so that a clip may be a file of its own."""
        return any(_plain(name) in VIDEO_IDS for name in self.read.get("path", ()))

    def rows(self, values: Mapping[str, Any]) -> Iterator[Values]:
        """A row in our columns; one for each caption where it has several."""
        found = {
            ours: values[name]
            for ours, theirs in self.read.items()
            for name in theirs
            if ours != "text" and name in values
        }
        if self.seconds is not None and "start" in found and "end" not in found:
            with suppress(OverflowError, TypeError, ValueError):
                found["end"] = float(found["start"]) + self.seconds
        there = [name for name in self.read.get("text", ()) if name in values]
        captions = [text for name in there for text in _texts(name, values[name])]
        if not captions:
            yield found
        for text in captions:
            yield {**found, "text": text}

    @property
    def shown(self) -> Mapping[str, str]:
        """What the list calls those of our columns that it calls otherwise."""
        return {
            ours: " and ".join(theirs) for ours, theirs in self.read.items() if theirs != (ours,)
        }

    @property
    def is_plain(self) -> bool:
        """Whether all columns are called as here, and one of them says which file is meant."""
        return not self.unused and not self.shown and bool(self.read.keys() & {"path", "id"})

    def remarks(self, source: object) -> Iterator[str]:
        """What nobody may expect of how the list is read, a line for each cause."""
        renamed = [f"{first_few(self.read[ours])} as {ours}" for ours in self.shown]
        if renamed:
            yield f"{source}: reads {', '.join(renamed)}; --column OURS=THEIRS reads another one"
        if self.seconds is not None and "start" in self.read and "end" not in self.read:
            yield f"{source}: each clip is {self.seconds:g} s from its start, as in AudioSet"
        if self.unused:
            reasons = [self._reason(name) for name in self.unused]
            known = f"the columns of a clip are {', '.join(COLUMNS)}"
            yield f"{source}: columns that are not used: {first_few(reasons, _SHOWN)}; {known}"

    def problem(self, source: object) -> Problem:
        """What to say of the columns where the list is refused."""
        remedy = "if another column is meant: --column OURS=THEIRS, such as path=NAME"
        return Problem(str(source), _listed(self.names), remedy)

    def _reason(self, name: str) -> str:
        for ours, known in _KNOWN.items():
            if _plain(name) in (ours, *known):
                there = self.read.get(ours)
                reason = f"{ours} is read from {there[0]}" if there else "by --column"
                return f"{name} ({reason})"
        meant = suggestion(
            name, [one for one in COLUMNS if one[0] == name[:1] and one not in self.read]
        ).strip()
        return f"{name} ({meant})" if meant else name


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def _check_given(given: Mapping[str, Sequence[str]], names: Sequence[str], place: str) -> None:
    problems = Problems()
    for ours, theirs in given.items():
        if ours not in COLUMNS:
            remedy = f"{suggestion(ours, COLUMNS)}they are {', '.join(COLUMNS)}"
            problems.append(Problem(place, f"no clip has a column {ours!r}", remedy))
        elif len(theirs) > 1 and ours != "text":
            problem = f"{ours!r} is given {len(theirs)} columns"
            problems.append(Problem(place, problem, "of text alone there may be several"))
        for name in filter(None, set(theirs) - set(names)):
            remedy = f"{suggestion(name, names)}{_listed(names)}"
            problems.append(Problem(place, f"there is no column {name!r}", remedy))
    problems.check()


def _listed(names: Sequence[str]) -> str:
    return f"its columns are {first_few(names, _SHOWN) or 'none'}"


def _texts(name: str, value: Any) -> list[Any]:
    """The captions of a cell, which may be a list, in a table as JSON or Python write it."""
    if isinstance(value, str) and value.startswith("[") and name.lower() in _LISTS:
        for parse in (json.loads, literal_eval):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                value = parse(value)
                break
    if not isinstance(value, list):
        return [value]
    return [one for one in value if one is not None and str(one).strip()]


VGGSOUND = ("YouTube ID", "start seconds", "label", "split")
"""Columns of ``vggsound.csv``, which has no line that names them."""


def without_header(cells: Sequence[str]) -> tuple[str, ...]:
    """The columns of a table whose first line is a clip already; none if it is not known.

    >>> without_header(["---g-f_I2yQ", "1", "people marching", "test"])[0]
    'YouTube ID'
    """
    known = len(cells) == len(VGGSOUND) and cells[1].isdecimal() and cells[3] in ("train", "test")
    return VGGSOUND if known else ()


def entries(parsed: Any) -> list[Any] | None:
    """The clips of a JSON file that is no list; None if its form is not known.

    MSR-VTT's ``videos`` and ``sentences`` (clips are cut already, so that times are left out),
    MUSIC's ``videos`` by instrument, or any object with a single list of objects.
    """
    if not isinstance(parsed, dict):
        return None
    videos, sentences = parsed.get("videos"), parsed.get("sentences")
    if isinstance(videos, list) and isinstance(sentences, list):
        return list(_msrvtt(videos, sentences))
    if isinstance(videos, dict):
        return [
            {"video_id": video, "label": name}
            for name, listed in videos.items()
            for video in (listed if isinstance(listed, list) else [listed])
        ]
    lists = [value for value in parsed.values() if isinstance(value, list)]
    return lists[0] if len(lists) == 1 and lists[0] else None


def _msrvtt(videos: Sequence[Any], sentences: Sequence[Any]) -> Iterator[Values]:
    about = {video.get("video_id"): video for video in videos if isinstance(video, dict)}
    for sentence in sentences:
        if not isinstance(sentence, dict):
            yield sentence
            continue
        video = about.get(sentence.get("video_id"), {})
        yield {
            "video_id": sentence.get("video_id"),
            "caption": sentence.get("caption"),
            "split": video.get("split"),
            "label": video.get("category"),
        }


def ucf_line(line: str, place: str) -> Values:
    """A line of UCF101's ``trainlist01.txt`` or ``testlist01.txt``: a file in its class's folder.

    Clips of one group (``v_Archery_g08``) show the same people and belong together. The numbers of
    classes, which test lists lack, are those of the sorted names, as there, but from 0.
    """
    match = _UCF.fullmatch(line)
    if match is None:
        remedy = "a .txt is read as UCF101 has them: Archery/v_Archery_g08_c01.avi 3"
        raise InputError.at(place, f"is {line[:60]!r}", remedy)
    return match.groupdict()
