"""The order of the charts, and which curves each of them takes."""

import re

from continual_mm.definitions.modality import pair
from continual_mm.runs.board.pages import forgetting_tag, layout, mark_tag, mean_tag

PAIRS = {pair("a", "b"): "old", pair("a", "bc"): "new", pair("b", "bc"): "emergent"}
TERMS = ("contrast/a-b", "cluster/a", "reconstruction/bc", "replay/contrast/a-b", "ewc", "gauge")
TAGS = [
    *(mean_tag(split, p) for p in PAIRS for split in ("test", "validation")),
    *(f"test/recall@{k}/{p}/{q} to {g}" for k in (1, 5) for p in PAIRS for q, g in p.directions),
    *(mark_tag(p) for p in PAIRS),
    *(forgetting_tag(p) for p in PAIRS),
    *(f"loss/{name}" for name in ("total", *TERMS)),
    *(f"norm/{name}" for name in ("a", "b", "bc")),
    *("geometry/rotation", "geometry/plan drift/a-b", "geometry/residual/a", "geometry/moved/a"),
]


def test_pages_are_sorted_and_charts_take_their_own_curves_only():
    page = layout(PAIRS, ["a", "b", "bc"])
    shown = {
        (number, chart.title): [t for t in TAGS if any(re.match(r, t) for r in chart.multiline.tag)]
        for number, category in enumerate(page.category)
        for chart in category.chart
    }
    assert shown[0, "a-b (old)"] == ["test/recall@1/a-b/mean", "stage begins/a-b"]
    assert shown[0, "a-bc (new)"] == ["test/recall@1/a-bc/mean", "stage begins/a-bc"]
    assert shown[1, "a-b (old)"] == ["forgetting/a-b"]
    assert (1, "a-bc (new)") not in shown
    assert shown[2, "total"] == ["loss/total"]
    assert shown[2, "contrast"] == ["loss/contrast/a-b"]
    kept = ["loss/replay/contrast/a-b", "loss/ewc", "loss/gauge"]
    assert shown[2, "what protects old pairs"] == kept
    assert shown[3, "b"] == ["norm/b"]
    assert shown[4, "plan drift of old pairs, in nats"] == ["geometry/plan drift/a-b"]
    assert shown[4, "rotation that old modalities share, in radians"] == ["geometry/rotation"]
    assert shown[6, "bc to a"] == ["test/recall@1/a-bc/bc to a"]
    losses = [tag for (number, _), tags in shown.items() if number == 2 for tag in tags]
    assert sorted(losses) == sorted(tag for tag in TAGS if tag.startswith("loss/"))
