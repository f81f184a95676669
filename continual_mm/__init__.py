"""Continual multimodal learning: new modalities join a joint space, old pairs stay aligned."""

from typing import TYPE_CHECKING, Any

from continual_mm.data.installed import installed

if TYPE_CHECKING:
    from continual_mm.data.dataset import Dataset as Dataset
    from continual_mm.data.pack import read_pack as read_pack
    from continual_mm.data.store.reader import read_store as read_store
    from continual_mm.data.store.small import write_pack_from as write_pack_from
    from continual_mm.data.store.writer import store_writer as store_writer
    from continual_mm.data.store.writer import write_store as write_store
    from continual_mm.definitions import (
        MemorySettings as MemorySettings,
    )
    from continual_mm.definitions import (
        Scenario as Scenario,
    )
    from continual_mm.definitions import (
        SpaceSettings as SpaceSettings,
    )
    from continual_mm.definitions import (
        Stage as Stage,
    )
    from continual_mm.definitions import (
        Strategy as Strategy,
    )
    from continual_mm.definitions import (
        TowerSettings as TowerSettings,
    )
    from continual_mm.definitions import (
        Training as Training,
    )
    from continual_mm.modality import Kind as Kind
    from continual_mm.modality import Modality as Modality
    from continual_mm.plugins.agem import AGEM as AGEM
    from continual_mm.plugins.distill import Distill as Distill
    from continual_mm.plugins.ewc import EWC as EWC
    from continual_mm.plugins.freeze import Freeze as Freeze
    from continual_mm.plugins.interpolate import Interpolate as Interpolate
    from continual_mm.plugins.mas import MAS as MAS
    from continual_mm.plugins.match import Match as Match
    from continual_mm.plugins.nullspace import Nullspace as Nullspace
    from continual_mm.plugins.pair_lora import PairLora as PairLora
    from continual_mm.plugins.partners import Partners as Partners
    from continual_mm.plugins.plugin import Plugin as Plugin
    from continual_mm.plugins.prototypes import Prototypes as Prototypes
    from continual_mm.plugins.realign import Realign as Realign
    from continual_mm.plugins.relational import Relational as Relational
    from continual_mm.plugins.replay import Replay as Replay
    from continual_mm.plugins.rest import Rest as Rest
    from continual_mm.plugins.row_kl import RowKL as RowKL
    from continual_mm.plugins.si import SI as SI
    from continual_mm.plugins.slow import Slow as Slow
    from continual_mm.plugins.transport import Transport as Transport
    from continual_mm.plugins.warmup import Warmup as Warmup
    from continual_mm.protocol_definitions import Protocol as Protocol
    from continual_mm.runs.history import History as History
    from continual_mm.runs.released import load_released as load_released
    from continual_mm.runs.released import save_released as save_released
    from continual_mm.runs.run import open_run as open_run
    from continual_mm.runs.run import run as run
    from continual_mm.runs.run import train as train

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "data.dataset",
    "read_pack": "data.pack",
    "read_store": "data.store.reader",
    "store_writer": "data.store.writer",
    "write_pack_from": "data.store.small",
    "write_store": "data.store.writer",
    "Kind": "modality",
    "Modality": "modality",
    "MemorySettings": "definitions",
    "Scenario": "definitions",
    "SpaceSettings": "definitions",
    "Stage": "definitions",
    "Strategy": "definitions",
    "TowerSettings": "definitions",
    "Training": "definitions",
    "AGEM": "plugins.agem",
    "Distill": "plugins.distill",
    "EWC": "plugins.ewc",
    "Freeze": "plugins.freeze",
    "Interpolate": "plugins.interpolate",
    "MAS": "plugins.mas",
    "Plugin": "plugins.plugin",
    "Relational": "plugins.relational",
    "Match": "plugins.match",
    "Nullspace": "plugins.nullspace",
    "Realign": "plugins.realign",
    "PairLora": "plugins.pair_lora",
    "Partners": "plugins.partners",
    "Prototypes": "plugins.prototypes",
    "Replay": "plugins.replay",
    "Rest": "plugins.rest",
    "RowKL": "plugins.row_kl",
    "SI": "plugins.si",
    "Slow": "plugins.slow",
    "Transport": "plugins.transport",
    "Warmup": "plugins.warmup",
    "Protocol": "protocol_definitions",
    "History": "runs.history",
    "load_released": "runs.released",
    "open_run": "runs.run",
    "run": "runs.run",
    "save_released": "runs.released",
    "train": "runs.run",
}

__all__ = [
    "AGEM",
    "EWC",
    "MAS",
    "SI",
    "Dataset",
    "Distill",
    "Freeze",
    "History",
    "Interpolate",
    "Kind",
    "Match",
    "MemorySettings",
    "Modality",
    "Nullspace",
    "PairLora",
    "Partners",
    "Plugin",
    "Protocol",
    "Prototypes",
    "Realign",
    "Relational",
    "Replay",
    "Rest",
    "RowKL",
    "Scenario",
    "Slow",
    "SpaceSettings",
    "Stage",
    "Strategy",
    "TowerSettings",
    "Training",
    "Transport",
    "Warmup",
    "load_released",
    "open_run",
    "read_pack",
    "read_store",
    "run",
    "save_released",
    "store_writer",
    "train",
    "write_pack_from",
    "write_store",
]


def __getattr__(name: str) -> Any:
    """Hand a public name on from where it lives; torch is imported only if that needs it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'continual_mm' has no attribute {name!r}")
    return installed(f"continual_mm.{_HOMES[name]}:{name}", f"continual_mm.{name}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
