"""How a trial can end."""

OK = 0
PRICE_MISSING = 1
VOLUME_MISSING = 2
MARK_MISSING = 3
COST_OVER_PRICE = 4

SENTENCES = {
    OK: "ok",
    PRICE_MISSING: "a price is missing where the trial needs one",
    VOLUME_MISSING: "impact needs the volume of a bar before the fill, and there is none",
    COST_OVER_PRICE: "a sale would cost more than its price: the cost model does not hold for this size",
    MARK_MISSING: "a settlement has no mark price while a position is held",
}
