"""The feature kinds: one class and one file each, and one line here."""

from tfctr.features.kinds.base import KINDS as KINDS
from tfctr.features.kinds.categorical import Categorical as Categorical
from tfctr.features.kinds.event_time import EventTime as EventTime
from tfctr.features.kinds.frozen import Frozen as Frozen
from tfctr.features.kinds.numeric import Numeric as Numeric
