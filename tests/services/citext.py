"""Enough of the extension `citext`, which the embedded binaries lack: a type whose equality is not that of its text."""

from __future__ import annotations

_TYPE = """
CREATE TYPE citext;
CREATE FUNCTION citextin(cstring) RETURNS citext AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION citextout(citext) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
CREATE TYPE citext (INPUT = citextin, OUTPUT = citextout, INTERNALLENGTH = VARIABLE, STORAGE = extended, CATEGORY = 'S',
    COLLATABLE = true);
CREATE CAST (citext AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (text AS citext) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE FUNCTION citext_cmp(citext, citext) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS
    'SELECT bttextcmp(lower($1::text), lower($2::text))';
"""
_OPERATORS = [("<", "<", ">"), ("<=", "<=", ">="), ("=", "=", "="), (">=", ">=", "<="), (">", ">", "<")]


def citext() -> str:
    """The type, its comparisons and its index class."""
    made = [_TYPE]
    for number, (name, symbol, commutator) in enumerate(_OPERATORS, 1):
        made.append(
            f"CREATE FUNCTION citext_op{number}(citext, citext) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS"
            f" 'SELECT citext_cmp($1, $2) {symbol} 0';"
            f"CREATE OPERATOR {name} (FUNCTION = citext_op{number}, LEFTARG = citext, RIGHTARG = citext,"
            f" COMMUTATOR = {commutator});"
        )
    listed = ", ".join(f"OPERATOR {number} {name}" for number, (name, _, _) in enumerate(_OPERATORS, 1))
    made.append(
        f"CREATE OPERATOR CLASS citext_ops DEFAULT FOR TYPE citext USING btree AS {listed},"
        " FUNCTION 1 citext_cmp(citext, citext);"
    )
    return "".join(made)
