"""The SQL of reports, written for DuckDB, as Spark SQL.

Nothing else in Topbill imports `sqlglot`. It knows most of both languages; said here is what it
does not know, what one engine has another word for, and where the same word means another thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB

from topbill.domain.sql import quoted

Query = exp.Expr
"""A parsed query, in DuckDB's words."""


class _Reader(DuckDB):
    """DuckDB, whose `len` is always of a list in what reports ask."""

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
        return Statement(tree.expression, tree.this.name, tree.kind == "VIEW")
    if isinstance(tree, exp.Query):
        return Statement(tree)
    raise ValueError(f"got {tree.key}; expected a query, or the making of a temporary table")


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
    columns: Callable[[exp.Table], Sequence[str]],
) -> Query:
    """The query, in which each table that `source` has a query for is that query in brackets.
    `columns` are those of a table, for stars with changes, which Spark has not."""
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
        table.replace(replacement)
    return query


def _stars_with_changes(select: exp.Select, columns: Callable[[exp.Table], Sequence[str]]) -> None:
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


def _sources(select: exp.Select) -> list[exp.Table]:
    """The tables that a query reads directly."""
    joined = [join.this for join in select.args.get("joins") or []]
    first = select.args.get("from_")
    sources = [*([] if first is None else [first.this]), *joined]
    return [source for source in sources if isinstance(source, exp.Table)]


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
        _joins_as_of(select)
        _lists_side_by_side(select)
        _order_by_sums(select)
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
        if _aggregates(one):
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


def _list_position(items: exp.Expr, item: exp.Expr) -> exp.Expr:
    return _call("nullif")(_call("array_position")(items, item), exp.Literal.number(0))


def _at(items: exp.Expr, place: exp.Expr) -> exp.Expr:
    """The item at a place from 1 on; NULL where there is none."""
    before = exp.Sub(this=exp.paren(place), expression=exp.Literal.number(1))
    return _call("get")(items, exp.cast(before, exp.DType.INT))


_FUNCTIONS: Mapping[str, Callable[..., exp.Expr]] = {
    "epoch_us": _call("unix_micros"),
    "hash": _call("xxhash64"),
    "isfinite": _is_finite,
    "timezone": _time_zone,
    "list_position": _list_position,
    "list_extract": _at,
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
    if place.is_int:
        # Literal places count from 0 since they were parsed.
        return _call("get")(node.this, place)
    if isinstance(place, exp.Literal):
        return node
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
    """Spark numbers rows in an order only, which may be any."""
    if isinstance(node.this, exp.RowNumber) and not node.args.get("order"):
        node = node.copy()
        node.set("order", exp.Order(expressions=[exp.Ordered(this=exp.Literal.string(""))]))
    return node


_NODES: Mapping[type[exp.Expr], Callable[[Any], exp.Expr]] = {
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
