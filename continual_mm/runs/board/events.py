"""The event file of a run, written by the thread that logs: its errors are those of the run.

TensorBoard's own writer has a thread for it, in which a full disk ends in a traceback.
"""

import os
import time
from itertools import count
from pathlib import Path
from socket import gethostname
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import FileWriter, SummaryWriter

from continual_mm.system.files import writing

FLUSH_SECONDS = 10  # how far the file of a run in progress may lag behind it
_VERSION = "brain.Event:2"
_numbers = count()


class EventFile:
    """A new event file in a folder; any error of writing it is a WriteError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # TensorBoard reads the files of a folder in the order of their names.
        unique = f"{int(time.time()):010d}.{gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._path = folder / f"events.out.tfevents.{unique}"
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")
        self._records = RecordWriter(self._file)
        self._flushed = time.monotonic()
        self.add_event(Event(wall_time=time.time(), file_version=_VERSION))
        self.flush()

    def get_logdir(self) -> str:
        """The folder."""
        return str(self._folder)

    def add_event(self, event: Event) -> None:
        """Write an event, and what is buffered every few seconds."""
        with writing(self._path):
            self._records.write(event.SerializeToString())
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered."""
        with writing(self._path):
            self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is buffered, and close the file in any case."""
        with writing(self._path):
            self._file.close()


class _Writer(FileWriter):
    """torch's layer above a file, which would make one of TensorBoard's."""

    def __init__(self, folder: Path) -> None:
        self.event_writer = EventFile(folder)


class EventWriter(SummaryWriter):
    """torch's writer of scalars, texts and figures, into an :class:`EventFile`.

    ``purge_step`` is the first step whose events in earlier files are hidden.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        super().__init__(folder, purge_step=purge_step)

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            writer: Any = _Writer(self.log_dir)
            self.file_writer, self.all_writers = writer, {writer.get_logdir(): writer}  # type: ignore[assignment]
            if self.purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                for event in (Event(file_version=_VERSION), Event(session_log=start)):
                    writer.add_event(event, self.purge_step)
        return self.file_writer
