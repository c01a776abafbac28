"""A profile: every column measured over all rows, and what is wrong with the data, as findings.

    batches of all rows → `Measures` → columns as plain data
    the same with `look`'s findings → `remarks`: records, the worst first
    two profiles → `compare`

`init` and `profile` share `inspect.look`: what one says of a column the other says too. `records` has the
record of a finding, `distinct`, `words`, `numbers`, `moments` and `shapes` measure one column each, `rows`
counts equal rows, `pairs` holds columns against each other.
"""

from penstock.inspect.profile.compare import compare
from penstock.inspect.profile.measure import Measures
from penstock.inspect.profile.records import Remark
from penstock.inspect.profile.remarks import remarks

__all__ = ["Measures", "Remark", "compare", "remarks"]
