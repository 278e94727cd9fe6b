"""What the statements of a reviewed change may be made of: all that is not listed here is refused."""

from __future__ import annotations

from sqlglot import exp

STATEMENTS: dict[type[exp.Expression], frozenset[str]] = {
    exp.Insert: frozenset({"this", "expression", "conflict", "with_"}),
    exp.Update: frozenset({"this", "expressions", "from_", "where", "with_"}),
    exp.Delete: frozenset({"this", "using", "where", "with_"}),
}
"""What a file may hold, and the parts that it may have."""

PARTS: dict[type[exp.Expression], frozenset[str]] = {
    exp.Select: frozenset(
        {"expressions", "from_", "joins", "where", "group", "having", "order", "limit", "offset", "distinct"}
    ),
    exp.Table: frozenset({"this", "db", "alias", "joins"}),
    exp.Join: frozenset({"this", "side", "kind", "on", "using"}),
    exp.With: frozenset({"expressions"}),
    exp.CTE: frozenset({"this", "alias"}),
    exp.Subquery: frozenset({"this", "alias"}),
    exp.OnConflict: frozenset({"expressions", "action", "conflict_keys", "where"}),
    exp.Column: frozenset({"this", "table"}),
    exp.TableAlias: frozenset({"this", "columns"}),
    exp.Schema: frozenset({"this", "expressions"}),
    exp.Cast: frozenset({"this", "to"}),
    exp.DataType: frozenset({"this", "expressions"}),
}
"""Parts that a node may have where others of its parts do more than read."""

NODES: tuple[type[exp.Expression], ...] = (
    # Queries.
    exp.Union,
    exp.Except,
    exp.Intersect,
    exp.From,
    exp.Where,
    exp.Group,
    exp.Having,
    exp.Order,
    exp.Ordered,
    exp.Limit,
    exp.Offset,
    exp.Distinct,
    exp.Values,
    exp.Tuple,
    exp.Star,
    exp.Alias,
    # Names and values.
    exp.Identifier,
    exp.Literal,
    exp.RawString,
    exp.National,
    exp.Boolean,
    exp.Null,
    exp.Neg,
    exp.Paren,
    exp.DataTypeParam,
    exp.Array,
    exp.Interval,
    # Conditions.
    exp.And,
    exp.Or,
    exp.Not,
    exp.EQ,
    exp.NEQ,
    exp.GT,
    exp.GTE,
    exp.LT,
    exp.LTE,
    exp.Is,
    exp.NullSafeEQ,
    exp.NullSafeNEQ,
    exp.In,
    exp.Between,
    exp.Like,
    exp.ILike,
    exp.Escape,
    exp.Exists,
    exp.Any,
    exp.All,
    exp.Case,
    exp.If,
    # Arithmetic and texts.
    exp.Add,
    exp.Sub,
    exp.Mul,
    exp.Div,
    exp.Mod,
    exp.DPipe,
    # JSON.
    exp.JSONExtract,
    exp.JSONExtractScalar,
    exp.JSONBExtract,
    exp.JSONBExtractScalar,
    exp.JSONPath,
    exp.JSONPathRoot,
    exp.JSONPathKey,
    exp.JSONPathSubscript,
    exp.JSONBContains,
    exp.JSONBDeleteAtPath,
    exp.ArrayContainsAll,
    # Functions that compute and do nothing else.
    exp.Lower,
    exp.Upper,
    exp.Trim,
    exp.Length,
    exp.Substring,
    exp.Replace,
    exp.Concat,
    exp.Coalesce,
    exp.Nullif,
    exp.Abs,
    exp.Round,
    exp.Count,
    exp.Min,
    exp.Max,
    exp.JSONSet,
    exp.JSONObject,
    exp.JSONArray,
    exp.JSONKeyValue,
)
FUNCTIONS = {
    "sqlite": frozenset({"json", "json_each", "json_insert", "json_patch", "json_remove", "json_replace", "json_type"}),
    "postgres": frozenset(
        {
            "btrim",
            "json_build_array",
            "json_build_object",
            "json_each",
            "jsonb_array_elements",
            "jsonb_array_elements_text",
            "jsonb_build_array",
            "jsonb_build_object",
            "jsonb_each",
            "jsonb_insert",
            "jsonb_set",
            "jsonb_typeof",
            "to_json",
            "to_jsonb",
        }
    ),
}
"""Functions that the parser knows by their name only."""

TYPES = frozenset(
    {
        exp.DType.TEXT,
        exp.DType.VARCHAR,
        exp.DType.INT,
        exp.DType.BIGINT,
        exp.DType.SMALLINT,
        exp.DType.DOUBLE,
        exp.DType.FLOAT,
        exp.DType.DECIMAL,
        exp.DType.BOOLEAN,
        exp.DType.JSON,
        exp.DType.JSONB,
    }
)
"""Types that a value may be cast to."""

ALL_NODES = frozenset({*STATEMENTS, *PARTS, *NODES})
"""Kinds of nodes that a statement may hold."""
