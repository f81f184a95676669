"""The public names and where they come from; read when the package is imported."""

from .comparison.interactive import Comparison as Comparison
from .comparison.interactive import compare as compare
from .data.dataset import Dataset as Dataset
from .data.pack import read_pack as read_pack
from .data.store.pack_writer import write_pack_from as write_pack_from
from .data.store.reader import read_store as read_store
from .data.store.writer import store_writer as store_writer
from .data.store.writer import write_store as write_store
from .definitions.modality import Kind as Kind
from .definitions.modality import Modality as Modality
from .definitions.scenario import MemorySettings as MemorySettings
from .definitions.scenario import Protocol as Protocol
from .definitions.scenario import Scenario as Scenario
from .definitions.scenario import SpaceSettings as SpaceSettings
from .definitions.scenario import Stage as Stage
from .definitions.scenario import Strategy as Strategy
from .definitions.scenario import TowerSettings as TowerSettings
from .definitions.scenario import Training as Training
from .integrations.export import export_sentence_transformer as export_sentence_transformer
from .integrations.sentence_transformers import (
    open_sentence_transformer as open_sentence_transformer,
)
from .plugins.agem import AGEM as AGEM
from .plugins.cross_intra import CrossIntra as CrossIntra
from .plugins.distill import Distill as Distill
from .plugins.ewc import EWC as EWC
from .plugins.expand import Expand as Expand
from .plugins.freeze import Freeze as Freeze
from .plugins.interpolate import Interpolate as Interpolate
from .plugins.joint_lora import JointLora as JointLora
from .plugins.mas import MAS as MAS
from .plugins.match import Match as Match
from .plugins.merge import Merge as Merge
from .plugins.mmlora import MMLora as MMLora
from .plugins.nullspace import Nullspace as Nullspace
from .plugins.pair_lora import PairLora as PairLora
from .plugins.partners import Partners as Partners
from .plugins.plugin import Plugin as Plugin
from .plugins.prototypes import Prototypes as Prototypes
from .plugins.realign import Realign as Realign
from .plugins.relational import Relational as Relational
from .plugins.replay import Replay as Replay
from .plugins.rest import Rest as Rest
from .plugins.row_kl import RowKL as RowKL
from .plugins.si import SI as SI
from .plugins.slow import Slow as Slow
from .plugins.transport import Transport as Transport
from .plugins.warmup import Warmup as Warmup
from .plugins.watch import Watch as Watch
from .rendering.depth import normalise_depth as normalise_depth
from .rendering.depth import render_depth as render_depth
from .retrieval.retriever import Hit as Hit
from .retrieval.retriever import Retriever as Retriever
from .runs.compress import compress as compress
from .runs.consolidation import consolidate as consolidate
from .runs.history import History as History
from .runs.loading import load_dataset as load_dataset
from .runs.loading import load_scenario as load_scenario
from .runs.loading import load_strategy as load_strategy
from .runs.merge import merge as merge
from .runs.run import open_run as open_run
from .runs.run import run as run
from .runs.run import train as train
from .runs.start import load_released as load_released
from .runs.start import save_released as save_released

__version__: str
