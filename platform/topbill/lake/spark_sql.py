"""The SQL of reports, written for DuckDB, as Spark SQL.

Nothing else in Topbill imports `sqlglot`. It knows most of both languages; said here is what it
does not know, what one engine has another word for, and where the same word means another thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB

from topbill.domain.sql import quoted

Query = exp.Expr
"""A parsed query, in DuckDB's words."""

Table = exp.Table
Source = exp.Table | exp.Subquery
"""What a query reads: a table, or another query in brackets."""


class _Reader(DuckDB):
    """DuckDB, whose `len` is always of a list in what reports ask. Places in lists stay as they are
    written: to count from 0 instead is done to all of them alike, in `_bracket`."""

    INDEX_OFFSET = 0

    class Parser(DuckDB.Parser):  # type: ignore[misc, valid-type]
        """Tells `len` from `length`, which Spark has two words for."""

        FUNCTIONS = {  # noqa: RUF012  (as its base has it)
            **DuckDB.Parser.FUNCTIONS,
            "LEN": exp.ArraySize.from_arg_list,
        }


class Statement(NamedTuple):
    """A statement: its query, and the name of the table or view that it makes, if it makes one."""

    query: Query
    makes: str | None = None
    is_view: bool = False


def parse(sql: str, parameters: Mapping[str, object] | None = None) -> Statement:
    """A SELECT, or the making of a temporary table or view, with its parameters in it.

    Raises:
        ValueError: it is another statement, or lacks a parameter.
    """
    tree = sqlglot.parse_one(sql, dialect=_Reader)
    tree = tree.transform(_with_parameters, dict(parameters or {}))
    if isinstance(tree, exp.Create):
        made = tree.this
        if isinstance(made, exp.Schema):
            _name_columns(tree.expression, made.expressions)
            made = made.this
        return Statement(tree.expression, made.name, tree.kind == "VIEW")
    if isinstance(tree, exp.Query):
        return Statement(tree)
    raise ValueError(f"got {tree.key}; expected a query, or the making of a temporary table")


def _name_columns(query: exp.Expr, names: Sequence[exp.Expr]) -> None:
    """Call a view's columns as it does: of queries side by side the first one's names count."""
    while not isinstance(query, exp.Select):
        query = query.this
    columns = []
    for column, name in zip(query.expressions, names, strict=True):
        columns.append(exp.alias_(column.unalias(), name.name, quoted=True))
    query.set("expressions", columns)


def is_query(sql: str) -> bool:
    """Whether a statement that DuckDB takes is a query that can be told in Spark's words."""
    return isinstance(sqlglot.parse_one(sql, dialect=_Reader), exp.Query)


def tables_of(query: Query) -> Iterator[exp.Table]:
    """Every mention of a table that the query does not define itself."""
    for table in query.find_all(exp.Table):
        if table.db or not _is_defined(table):
            yield table


def _is_defined(table: exp.Table) -> bool:
    """Whether a WITH around the mention defines the name."""
    node = table.parent
    while node is not None:
        names = [cte.alias for cte in getattr(node, "ctes", [])]
        if table.name in names:
            return True
        node = node.parent
    return False


def with_tables(
    query: Query,
    source: Callable[[exp.Table], Query | None],
    columns: Callable[[Source], Sequence[str]],
) -> Query:
    """The query, in which each table that `source` has a query for is that query in brackets.
    `columns` are those of what is read, for stars with changes, which Spark has not."""
    query = query.copy()
    for select in list(query.find_all(exp.Select)):
        _stars_with_changes(select, columns)
    for table in list(tables_of(query)):
        own = source(table)
        if own is None:
            continue
        alias = table.alias or table.name
        inner = own.copy()
        if isinstance(own, exp.Table):
            replacement: exp.Expr = exp.alias_(inner, alias, table=True, quoted=True)
        else:
            replacement = exp.Subquery(
                this=inner, alias=exp.TableAlias(this=exp.to_identifier(alias, quoted=True))
            )
        # Tables that are joined within brackets hang on the first of them.
        for part in _OF_TABLE:
            replacement.set(part, table.args.get(part))
        table.replace(replacement)
    return query


_OF_TABLE = ("joins", "laterals", "pivots", "sample")
"""What a table has beside its name."""


def _stars_with_changes(select: exp.Select, columns: Callable[[Source], Sequence[str]]) -> None:
    """`* REPLACE (… AS name)` and `* EXCLUDE (name)` by the names of all columns."""
    picked: list[exp.Expr] = []
    for one in select.expressions:
        star = one.this if isinstance(one, exp.Column) else one
        if not isinstance(star, exp.Star) or not any(star.args.values()):
            picked.append(one)
            continue
        alias = one.table if isinstance(one, exp.Column) else ""
        tables = [source for source in _sources(select) if alias in ("", source.alias_or_name)]
        others = {each.alias: each for each in star.args.get("replace") or []}
        without = {each.name for each in star.args.get("except_") or []}
        for table in tables:
            for name in columns(table):
                column = exp.column(name, table=table.alias_or_name, quoted=True)
                if name not in without:
                    picked.append(others.get(name, column))
    select.set("expressions", picked)


def _sources(select: exp.Select) -> list[Source]:
    """What a query reads directly."""
    joined = [join.this for join in select.args.get("joins") or []]
    first = select.args.get("from_")
    sources = [*([] if first is None else [first.this]), *joined]
    return [source for source in sources if isinstance(source, exp.Table | exp.Subquery)]


def columns_of(types: Mapping[str, str], present: Sequence[str]) -> list[str]:
    """A table's columns as a view of DuckDB has them, by their names and types there: in its order,
    with NULL for those that are not in its files yet."""
    columns: list[exp.Expr] = []
    for name, kind in types.items():
        if name in present:
            columns.append(exp.column(name, quoted=True))
        else:
            column = exp.cast(exp.Null(), exp.DataType.build(kind, dialect="duckdb"))
            columns.append(exp.alias_(column, name, quoted=True))
    return [_in_spark(column) for column in columns]


def table_named(name: str) -> Query:
    """A table of that name, which `with_tables` leaves as it is."""
    return exp.Table(this=exp.to_identifier(name, quoted=True))


def spark_sql(query: Query) -> str:
    """The query, or all of a table, in Spark's SQL."""
    tree = query.copy()
    if isinstance(tree, exp.Table):
        tree = exp.select("*").from_(tree)
    for select in list(tree.find_all(exp.Select)):
        _group_by_all(select)
        _joins_of_one_side(select)
        _joins_as_of(select)
        _lists_side_by_side(select)
        _order_by_sums(select)
    return _in_spark(tree)


def _in_spark(tree: exp.Expr) -> str:
    # From the inside out: what a word becomes holds what its arguments became.
    for node in reversed(list(tree.walk())):
        other = _node(node)
        if other is not node:
            node.replace(other)
    return tree.sql(dialect="spark", identify=True)


# --- Values


def _with_parameters(node: exp.Expr, parameters: Mapping[str, object]) -> exp.Expr:
    if not isinstance(node, exp.Placeholder | exp.Parameter):
        return node
    name = node.name
    if name not in parameters:
        raise ValueError(f"got no value for ${name}")
    value = _literal(parameters[name])
    if isinstance(node.parent, exp.JSONExtract | exp.JSONExtractScalar):
        return _Reader().to_json_path(value) or value
    return value


def _literal(value: object) -> exp.Expr:
    # Read as any other text, so that a value means what it would to DuckDB.
    return sqlglot.parse_one(_text(value), dialect=_Reader)


def _text(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, str):
        return quoted(value)
    return f"CAST({quoted(str(value))} AS TIMESTAMP)"


# --- What a query is made of


def _group_by_all(select: exp.Select) -> None:
    """GROUP BY ALL by what it means; ORDER BY ALL by places."""
    group, order = select.args.get("group"), select.args.get("order")
    if group is not None and group.args.get("all"):
        # A number there would be a column's place.
        columns = [one.unalias() for one in select.expressions if not _aggregates(one)]
        keys = [one.copy() for one in columns if not isinstance(one, exp.Literal)]
        select.set("group", exp.Group(expressions=keys) if keys else None)
    if order is None or not isinstance(order.expressions[0].this, exp.Var):
        return
    places = []
    for place in range(1, len(select.expressions) + 1):
        places.append(exp.Ordered(this=exp.Literal.number(place), nulls_first=False))
    order.set("expressions", places)


def _aggregates(one: exp.Expr) -> bool:
    """Whether a column adds rows up; what is over a window does not."""
    return any(node.find_ancestor(exp.Window) is None for node in one.find_all(exp.AggFunc))


def _joins_of_one_side(select: exp.Select) -> None:
    """SEMI JOIN and ANTI JOIN, whose side Spark wants to be said."""
    for join in select.args.get("joins") or []:
        if join.kind in ("SEMI", "ANTI"):
            join.set("side", "LEFT")


def _joins_as_of(select: exp.Select) -> None:
    """ASOF JOIN, which Spark has not, as a join by spans: a row holds from its own time until that
    of the next."""
    for join in select.args.get("joins") or []:
        if join.method != "ASOF":
            continue
        right = join.this
        alias = right.alias or right.name
        conditions = (
            list(join.args["on"].flatten())
            if isinstance(join.args["on"], exp.And)
            else [join.args["on"]]
        )
        *same, later = conditions
        since = later.expression
        keys = [condition.expression.name for condition in same]
        bare = right.copy()
        bare.set("alias", None)
        window = exp.Window(
            this=exp.Anonymous(this="lead", expressions=[exp.column(since.name, quoted=True)]),
            partition_by=[exp.column(key, quoted=True) for key in keys],
            order=exp.Order(expressions=[exp.Ordered(this=exp.column(since.name, quoted=True))]),
        )
        spans = exp.select("*", exp.alias_(window, "@until", quoted=True)).from_(bare)
        join.set("this", spans.subquery(exp.to_identifier(alias, quoted=True)))
        join.set("method", None)
        until = exp.column("@until", table=alias, quoted=True)
        before = exp.or_(
            exp.Is(this=until.copy(), expression=exp.Null()),
            exp.LT(this=later.this.copy(), expression=until),
        )
        join.set("on", exp.and_(*(c.copy() for c in conditions), before))


def _lists_side_by_side(select: exp.Select) -> None:
    """Several lists unnested side by side: to Spark they are one list of structs."""
    lists = [one for one in select.expressions if isinstance(one.unalias(), exp.Explode)]
    if len(lists) < 2:
        return
    zipped = exp.Anonymous(
        this="arrays_zip", expressions=[one.unalias().this.copy() for one in lists]
    )
    names = [exp.to_identifier(one.alias_or_name, quoted=True) for one in lists]
    first, *others = lists
    first.replace(exp.Aliases(this=exp.Inline(this=zipped), expressions=names))
    for one in others:
        one.pop()


def _order_by_sums(select: exp.Select) -> None:
    """An order by sums that are no columns, as it is of a query that has them as columns."""
    order = select.args.get("order")
    if order is None or not any(map(_aggregates, order.expressions)):
        return
    inner = exp.Select()
    for name, value in list(select.args.items()):
        if name not in ("order", "limit", "offset"):
            inner.set(name, value)
            select.set(name, None)
    columns = []
    for place, one in enumerate(inner.expressions):
        name = one.alias_or_name or f"@{place}"
        if not one.alias:
            one.replace(exp.alias_(one.copy(), name, quoted=True))
        columns.append(exp.column(name, quoted=True))
    for place, one in enumerate(order.expressions):
        # What is grouped by may stand there under another name than in the answer.
        is_named = isinstance(one.this, exp.Literal) or one.this.name in inner.named_selects
        if _aggregates(one) or not is_named:
            inner.append("expressions", exp.alias_(one.this, f"@order {place}", quoted=True))
            one.set("this", exp.column(f"@order {place}", quoted=True))
    select.set("expressions", columns)
    select.set("from_", exp.From(this=inner.subquery("@sums")))


# --- Words


def _node(node: exp.Expr) -> exp.Expr:
    rewrite = _NODES.get(type(node))
    if rewrite is not None:
        return rewrite(node)
    if isinstance(node, exp.Anonymous):
        words = _FUNCTIONS.get(node.name.lower())
        if words is not None:
            return words(*node.expressions)
    return node


def _call(name: str) -> Callable[..., exp.Expr]:
    return lambda *given: exp.Anonymous(this=name, expressions=list(given))


def _double(value: str) -> exp.Expr:
    return exp.cast(exp.Literal.string(value), exp.DType.DOUBLE)


def _is_finite(x: exp.Expr) -> exp.Expr:
    # NaN is above everything in Spark, as it is in DuckDB.
    size = exp.Abs(this=x)
    return exp.paren(exp.LT(this=size, expression=_double("Infinity")))


def _is_infinite(x: exp.Expr) -> exp.Expr:
    return exp.paren(exp.EQ(this=exp.Abs(this=x), expression=_double("Infinity")))


def _is_nan(x: exp.Expr) -> exp.Expr:
    return exp.paren(exp.EQ(this=x, expression=_double("NaN")))


def _time_zone(zone: exp.Expr, moment: exp.Expr) -> exp.Expr:
    """`timezone(zone, timezone('UTC', m))`: what the zone's clocks show; the other way round, the
    moment at which they do. Spark's session is in UTC."""
    inner = moment
    if isinstance(inner, exp.Anonymous) and inner.name.lower() == "timezone":
        inner_zone, local = inner.expressions
        if inner_zone.name == "UTC":
            return _call("from_utc_timestamp")(local, zone)
        if zone.name == "UTC":
            return _call("to_utc_timestamp")(local, inner_zone)
    return _call("timezone")(zone, moment)


def _json_type(node: exp.Expr) -> exp.Expr:
    """What a value of JSON is, in DuckDB's words for text and numbers."""
    path = _Reader().to_json_path(node.expression)
    text = "" if path is None else path.sql(dialect="spark")
    place = exp.Literal.string(text.removeprefix("'").removesuffix("'"))
    value = _call("variant_get")(_call("parse_json")(node.this), place)
    word = _call("schema_of_variant")(value)
    word = _call("replace")(word, exp.Literal.string("STRING"), exp.Literal.string("VARCHAR"))
    return _call("regexp_replace")(
        word, exp.Literal.string("^DECIMAL.*"), exp.Literal.string("DOUBLE")
    )


def _epoch(node: exp.Expr) -> exp.Expr:
    """Seconds with their fractions."""
    micros = exp.cast(_call("unix_micros")(node.this), exp.DType.DOUBLE)
    return exp.paren(exp.Div(this=micros, expression=_double("1e6"), typed=False, safe=False))


def _hash(*given: exp.Expr) -> exp.Expr:
    """Never below 0, as DuckDB's: a remainder would be, too."""
    most = exp.Literal.number(2**63 - 1)
    return exp.paren(exp.BitwiseAnd(this=_call("xxhash64")(*given), expression=most))


def _seconds(seconds: exp.Expr) -> exp.Expr:
    """An interval's µs."""
    return exp.Mul(
        this=exp.cast(seconds, exp.DType.BIGINT), expression=exp.Literal.number(1_000_000)
    )


def _is_seconds(node: exp.Expr) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() == "to_seconds"


def _add(node: exp.Expr) -> exp.Expr:
    """A moment so many seconds later."""
    if not _is_seconds(node.expression):
        return node
    moment = _call("unix_micros")(node.this)
    later = exp.Add(this=moment, expression=_seconds(node.expression.expressions[0]))
    return _call("timestamp_micros")(later)


def _sub(node: exp.Expr) -> exp.Expr:
    """Whole days between two dates, which are an interval to Spark."""
    if all(isinstance(side, exp.Cast) and side.is_type("date") for side in node.args.values()):
        return _call("datediff")(node.this, node.expression)
    return node


def _time_bucket(node: exp.Expr) -> exp.Expr:
    """When a bucket of so many seconds begins: they are counted from a Monday on, as DuckDB's."""
    if not _is_seconds(node.this):
        return node
    width = exp.paren(_seconds(node.this.expressions[0]))
    since = exp.Sub(
        this=_call("unix_micros")(node.expression), expression=exp.Literal.number(_FIRST_BUCKET)
    )
    past = _call("pmod")(since, width)
    start = exp.Sub(this=_call("unix_micros")(node.expression.copy()), expression=past)
    return _call("timestamp_micros")(start)


_FIRST_BUCKET = 946_857_600_000_000
"""The 3rd of January 2000, in µs."""


def _range(node: exp.Expr) -> exp.Expr:
    """Whole numbers, of which there may be none: Spark's own would count backwards then."""
    start = exp.cast(node.args["start"], exp.DType.BIGINT)
    end: exp.Expr = exp.cast(node.args["end"], exp.DType.BIGINT)
    if not node.args.get("is_end_exclusive"):
        end = exp.paren(exp.Add(this=end, expression=exp.Literal.number(1)))
    numbers = _call("sequence")(start, _call("greatest")(start.copy(), end))
    count = exp.Sub(this=end.copy(), expression=start.copy())
    none = exp.Literal.number(0)
    length = exp.cast(_call("greatest")(count, none), exp.DType.INT)
    return _call("slice")(numbers, exp.Literal.number(1), length)


def _from_json(node: exp.Expr) -> exp.Expr:
    """JSON as a struct, whose shape DuckDB is told as JSON, and Spark in its SQL."""
    shape = _struct(json.loads(node.expression.name))
    return _call("from_json")(node.this, exp.Literal.string(shape))


def _struct(shape: Any) -> str:
    if not isinstance(shape, dict):
        return {"VARCHAR": "STRING", "JSON": "STRING"}.get(shape, str(shape))
    fields = []
    for name, kind in shape.items():
        fields.append(f"`{name.replace('`', '``')}`: {_struct(kind)}")
    return f"STRUCT<{', '.join(fields)}>"


def _folded(first: float, step: type[exp.Expr]) -> Callable[[exp.Expr], exp.Expr]:
    """Of a list's numbers that are there; NULL of none."""

    def rewrite(items: exp.Expr) -> exp.Expr:
        present = sqlglot.parse_one("filter(x, e -> e IS NOT NULL)", dialect="spark")
        present = _call("filter")(items, present.expression)
        total, item = exp.to_identifier("t"), exp.to_identifier("e")
        fold = exp.Lambda(
            this=step(this=total.copy(), expression=item.copy()), expressions=[total, item]
        )
        folded = _call("aggregate")(present, _double(str(first)), fold)
        is_empty = exp.EQ(this=_call("size")(present.copy()), expression=exp.Literal.number(0))
        return exp.Case(ifs=[exp.If(this=is_empty, true=exp.Null())], default=folded)

    return rewrite


def _list_position(items: exp.Expr, item: exp.Expr) -> exp.Expr:
    return _call("nullif")(_call("array_position")(items, item), exp.Literal.number(0))


def _at(items: exp.Expr, place: exp.Expr) -> exp.Expr:
    """The item at a place from 1 on, or from -1 back; NULL where there is none."""
    if isinstance(place, exp.Neg):
        return _call("try_element_at")(items, place)
    if place.is_int:
        return _call("get")(items, exp.Literal.number(int(place.name) - 1))
    before = exp.Sub(this=exp.paren(place), expression=exp.Literal.number(1))
    return _call("get")(items, exp.cast(before, exp.DType.INT))


def _bit_count(bits: exp.Expr) -> exp.Expr:
    """How many numbers of a range occur, which DuckDB counts by a bit each."""
    if isinstance(bits, exp.Anonymous) and bits.name.lower() == "bitstring_agg":
        return exp.Count(this=exp.Distinct(expressions=[bits.expressions[0]]))
    return _call("bit_count")(bits)


_FUNCTIONS: Mapping[str, Callable[..., exp.Expr]] = {
    "bit_count": _bit_count,
    "epoch_us": _call("unix_micros"),
    "hash": _hash,
    "isfinite": _is_finite,
    "timezone": _time_zone,
    "list_position": _list_position,
    "list_extract": _at,
    "list_sum": _folded(0.0, exp.Add),
    "list_product": _folded(1.0, exp.Mul),
    # As DuckDB writes (a, b) and count(*) in the text of a view.
    "row": _call("struct"),
    "count_star": lambda: exp.Count(this=exp.Star()),
    "fsum": lambda x: exp.Sum(this=x),
    "favg": lambda x: exp.Avg(this=x),
    "arg_min_null": _call("min_by"),
    "arg_max_null": _call("max_by"),
}


def _bracket(node: exp.Expr) -> exp.Expr:
    (place,) = node.expressions
    if isinstance(place, exp.Literal) and place.is_string:
        return node  # a field
    return _at(node.this, place)


def _number(node: exp.Expr) -> exp.Expr:
    """Fractions as doubles, read from text: 0.5 alone is a decimal, and a decimal of 17 digits is
    not always the double next to it."""
    if node.is_string or node.is_int:
        return node
    if isinstance(node.parent, exp.Cast):
        return exp.Literal.string(node.name)
    return _double(node.name)


def _of_present(word: str) -> Callable[[exp.Expr], exp.Expr]:
    """`arg_min` leaves out rows without the argument, as `min_by` does not."""

    def rewrite(node: exp.Expr) -> exp.Expr:
        order = node.expression.copy()
        if isinstance(order, exp.Tuple):
            order = _call("struct")(*order.expressions)
        call = _call(word)(node.this.copy(), order)
        argument = exp.paren(node.this.copy())
        present = exp.Not(this=exp.Is(this=argument, expression=exp.Null()))
        if isinstance(node.parent, exp.Filter):
            return call
        return exp.Filter(this=call, expression=exp.Where(this=present))

    return rewrite


def _list_of(node: exp.Expr) -> exp.Expr:
    """A list in an order: structs are sorted by what stands first in them, as that order does."""
    if not isinstance(node.this, exp.Order):
        return node
    return _call("array_sort")(_call("collect_list")(node.this.this))


def _type(node: exp.Expr) -> exp.Expr:
    kind = node.this
    if kind in (exp.DType.TIMESTAMPNTZ, exp.DType.TIMESTAMP):
        return exp.DataType(this=exp.DType.TIMESTAMPTZ)
    if kind in (exp.DType.UBIGINT, exp.DType.INT128, exp.DType.UINT128):
        return exp.DataType(this=exp.DType.BIGINT)
    return node


def _window(node: exp.Expr) -> exp.Expr:
    """Spark numbers rows in an order only, which may be any; and takes a minus behind a window's
    name for a part of the name."""
    if node.args.get("alias") and isinstance(node.parent, exp.Binary):
        return exp.paren(node)
    if isinstance(node.this, exp.RowNumber) and not node.args.get("order"):
        node = node.copy()
        node.set("order", exp.Order(expressions=[exp.Ordered(this=exp.Literal.string(""))]))
    return node


_NODES: Mapping[type[exp.Expr], Callable[[Any], exp.Expr]] = {
    exp.Add: _add,
    exp.Sub: _sub,
    exp.DateBin: _time_bucket,
    exp.TimeToUnix: _epoch,
    exp.GenerateSeries: _range,
    exp.FromJson: _from_json,
    exp.Bracket: _bracket,
    exp.Literal: _number,
    exp.DataType: _type,
    exp.Window: _window,
    exp.ArgMin: _of_present("min_by"),
    exp.ArgMax: _of_present("max_by"),
    exp.IgnoreNulls: lambda node: exp.Max(this=node.this.this),
    exp.ArrayAgg: _list_of,
    exp.JSONType: _json_type,
    exp.IsNan: lambda node: _is_nan(node.this),
    exp.IsInf: lambda node: _is_infinite(node.this),
    exp.Median: lambda node: _call("percentile")(node.this, _double("0.5")),
    exp.PercentileCont: lambda node: _call("percentile")(node.this, node.expression),
    exp.UnixToTime: lambda node: _call("timestamp_micros")(node.this),
    exp.JSONExtractScalar: lambda node: node,
}
