"""Events in the forms in which other tools send them on: Segment's HTTP API, which RudderStack and
Jitsu speak too, and Snowplow's tracker protocol.

`sent` says what an event of theirs is here, `segment` and `snowplow` read the two forms, `app`
takes them.
"""

from topbill.service.intake.app import Intake, IntakeAnswer
from topbill.service.intake.segment import SegmentBody
from topbill.service.intake.snowplow import SnowplowBody

__all__ = ["Intake", "IntakeAnswer", "SegmentBody", "SnowplowBody"]
