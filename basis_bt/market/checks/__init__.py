"""What can be wrong with a series, found and told; see ``finding.py``."""

from basis_bt.market.checks.columns import check_labels, check_schema
from basis_bt.market.checks.finding import Finding, refuse
from basis_bt.market.checks.settlements import funding_findings, uncovered_findings
from basis_bt.market.checks.stamps import hole_findings, stamp_findings
from basis_bt.market.checks.values import value_findings

__all__ = [
    "Finding",
    "check_labels",
    "check_schema",
    "funding_findings",
    "hole_findings",
    "refuse",
    "stamp_findings",
    "uncovered_findings",
    "value_findings",
]
