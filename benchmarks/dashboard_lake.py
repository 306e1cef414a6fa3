"""The lake that the dashboards are timed on: decisions of an experiment, and whole pages of three
layers.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.lake import CHUNK, fill

from topbill import spec
from topbill.domain.decision import DECISION_COLUMNS, sql_types
from topbill.lake import DATABASE, Lake, connect
from topbill.lake.tables import schemas

LAYERS = ("rows", "titles", "artwork")
PAGES = 40
"""One page for so many of the other decisions."""
_CHUNK = 100_000
_EXPERIMENT = """
experiment: home
surface: artwork
unit: profile_id
context:
  device: {type: category, values: [tv, mobile, web]}
  hour: {type: cycle, period: 24}
actions: [{id: a0}, {id: a1}, {id: a2}, {id: a3}, {id: a4}, {id: a5},
          {id: a6}, {id: a7}, {id: a8}, {id: a9}, {id: a10}, {id: a11}]
metrics:
  play: {event: play, kind: binary, window: 30m}
  watched: {event: watch_fraction, kind: max, window: 6h}
  returned: {event: session_start, kind: binary, window: 48h}
  abandon: {event: abandon, kind: binary, window: 30m, better: lower}
objective: {play: 0.2, watched: 1.0, returned: 0.5}
variants:
  editorial: {policy: fixed, order: [a0], share: 20%, control: true}
  thompson: {policy: thompson, share: 40%}
  linucb: {policy: linucb, share: 40%, min_probability: 1%}
"""
_LAYER = """
experiment: front-{layer}
surface: {layer}
layer: front-{layer}
unit: profile_id
context: {{device: {{type: category, values: [tv, mobile, web]}}}}
actions: []
metrics:
  play: {{event: play, kind: binary, window: 30m}}
  watched: {{event: watch_fraction, kind: max, window: 6h}}
objective: {{play: 0.5, watched: 1.0}}
variants:
  first: {{policy: fixed, order: [], share: 50%, control: true}}
  any: {{policy: uniform, share: 50%}}
"""
_DECISIONS = """
SELECT {first} + p * 4 + k AS seq, 'page-' || p || ['', ':rows', ':titles',
  ':artwork'][k + 1] AS decision_id,
  make_timestamp_ms(1790000000000 + p * 4000)::TIMESTAMPTZ AS decided_at,
  ['front', 'front-rows', 'front-titles', 'front-artwork'][k + 1] AS experiment, 'r1' AS revision,
  CASE WHEN k > 0 THEN drawn[k] END AS variant, 'profile-' || hash(p) % 100000 AS unit,
    '{{"device":"tv"}}' AS context,
  CASE WHEN k = 0 THEN '{{"layers":[' || list_aggregate(list_transform([1, 2, 3],
    lambda i: '{{"layer":"' ||
    ['rows', 'titles', 'artwork'][i] || '","experiment":"front-' || ['rows', 'titles',
      'artwork'][i] ||
    '","variant":"' || drawn[i] || '"}}'), 'string_agg', ',') ||
      '],"fallbacks":[]}}' END AS actions,
  []::VARCHAR[] AS eligible, list_transform(range(12), lambda i: 't' || hash(p * 13 + i) % 2000)
    AS slate,
  list_transform(range(12), lambda i: 0.1) AS propensities, 1e-12 AS propensity,
    NULL::DOUBLE[][] AS probabilities,
  CASE WHEN k = 0 THEN 'page' ELSE 'uniform' END AS policy, 1 AS policy_version,
    'policy' AS reason, 900 AS latency_us,
  'page-' || p AS page, ['page', 'rows', 'titles', 'artwork'][k + 1] AS layer,
    NULL::VARCHAR AS place,
  []::{masks} AS masks
FROM (SELECT range AS p, list_transform([1, 2, 3], lambda i: if(hash(range * 3 + i) % 2 = 0,
  'first', 'any')) AS drawn
  FROM range({start}, {stop})) CROSS JOIN (VALUES (0), (1), (2), (3)) r(k)"""
_REWARDS = """
SELECT seq, decision_id, e.event || seq AS event_id, e.event, e.value, NULL::VARCHAR AS "action",
  NULL::BIGINT AS "position", decided_at + to_seconds(60) AS occurred_at,
    decided_at + to_seconds(61) AS received_at, experiment, variant,
  unit, decided_at, slate[1] AS item
FROM made CROSS JOIN (VALUES ('play', 1.0), ('watch_fraction', 0.5)) e(event, value)
WHERE hash(page || e.event) % 100 < 20"""


def filled(folder: Path, decisions: int) -> None:
    """Make the lake in `folder`, unless it is there: `decisions`, and a page with its layers for
    every 40 of them.
    """
    if (folder / DATABASE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "home.yaml").write_text(_EXPERIMENT)
    for layer in LAYERS:
        (folder / f"{layer}.yaml").write_text(_LAYER.format(layer=layer))
    started = time.perf_counter()
    lake = fill(folder, decisions)
    _browse(lake, -(-decisions // CHUNK) * CHUNK, decisions // PAGES)
    lake.compact(thorough=True)
    lake.write_database(
        spec.load_all([folder]), 1_790_000_000_000_000 + decisions * 100_000 + 86_400_000_000 * 3
    )
    print(f"filled in {time.perf_counter() - started:.0f} s")


def _browse(lake: Lake, first: int, pages: int) -> None:
    """Pages of 100,000 viewers, every layer's variant drawn evenly, whose plays depend on
    nothing.
    """
    maker = connect()
    for start in range(0, pages, _CHUNK):
        stop = min(start + _CHUNK, pages)
        query = _DECISIONS.format(
            first=first, start=start, stop=stop, masks=sql_types(DECISION_COLUMNS)["masks"]
        )
        rows = maker.sql(query).to_arrow_table().cast(schemas()["decisions"])
        lake.append("decisions", rows, first + stop * 4)
        maker.register("made", rows)
        lake.append(
            "rewards",
            maker.sql(_REWARDS).to_arrow_table().cast(schemas()["rewards"]),
            first + stop * 4,
        )
        maker.unregister("made")
    maker.close()
