"""Assemble."""

from dataclasses import dataclass
import numpy as np
from continual_mm.data.narrated_shapes import features
from continual_mm.data.narrated_shapes.attributes import SLOT_SAMPLES, Attributes, draw
from continual_mm.data.narrated_shapes.captions import caption
from continual_mm.data.narrated_shapes.card import CARD
from continual_mm.data.narrated_shapes.pictures import frames
from continual_mm.data.narrated_shapes.sounds import waveform


@dataclass
class Clip:
    frames: object
    waveform: object
    caption: str
    attributes: Attributes


def clip(index, *, seed=0):
    a, b, c, d = map(np.random.default_rng, np.random.SeedSequence((seed, index)).spawn(4))
    item = draw(a)
    return Clip(frames(item, b), waveform(item, c), caption(item, d), item)


def generate(*, seed, items=CARD.items):
    n = sum(items)
    V = np.zeros((n, *CARD["video"].shape), np.float32)
    A = np.zeros((n, *CARD["audio"].shape), np.float32)
    vl = np.zeros(n, np.int64)
    al = np.zeros(n, np.int64)
    caps = []
    for s in range(0, n, 100):
        rows = range(s, min(n, s + 100))
        clips = [clip(i, seed=seed) for i in rows]
        film = np.zeros((len(rows), 12, 32, 32, 3), np.uint8)
        wave = np.zeros((len(rows), 12 * SLOT_SAMPLES), np.float32)
        for k, c in enumerate(clips):
            film[k, : len(c.frames)] = c.frames
            wave[k, : len(c.waveform)] = c.waveform
            vl[s + k] = len(c.frames)
            al[s + k] = 1 + len(c.waveform) // features.HOP
            caps.append(c.caption)
        V[s : s + len(rows)] = features.frame_features(film)
        A[s : s + len(rows)] = features.log_mel(wave)
    V *= (np.arange(V.shape[1]) < vl[:, None])[..., None]
    A *= (np.arange(A.shape[1]) < al[:, None])[..., None]
    wv = features.word_vectors(caps[: items[0]], seed=seed)
    T, tl = features.embedded(caps, wv)
    return dict(
        video=V,
        audio=A,
        text=T,
        video_length=vl,
        audio_length=al,
        text_length=tl,
        split=np.repeat([0, 1, 2], items),
        text_raw=np.array(caps),
    )
