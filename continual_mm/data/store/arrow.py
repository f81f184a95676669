"""The columns of a store's tables as Arrow has them."""

import pyarrow as pa

from continual_mm.data.store.fields import Field


def arrow_type(field: Field) -> pa.DataType:
    """The type of a column."""
    value = pa.type_for_alias(field.dtype)
    if field.width is None:
        return value
    return pa.list_(value, field.width) if field.width else pa.list_(value)
