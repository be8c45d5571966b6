"""What an experiment demands of its model before it is pushed, and what its evaluation reports."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, create_model, model_validator

from tfctr.errors import UserError
from tfctr.features.parsing import sliceable
from tfctr.features.spec import FeatureFile
from tfctr.features.yaml_file import Strict
from tfctr.metrics.reference import Weighting
from tfctr.metrics.table import METRICS, metric_named


class Demand(Strict):
    """What a blessing asks of one metric, over all examples together or in a slice."""

    column: str | None = Field(None, min_length=1, description="the slice column; null: all examples together")
    value: str | None = Field(None, description="the slice's value; null: every value of the column")
    metric: Annotated[str, AfterValidator(lambda name: metric_named(name).name)] = "gauc"
    minimum: float | None = None
    maximum: float | None = None
    max_fall: float | None = Field(
        None, ge=0, description="where more is better: allowed fall against the latest blessed"
    )

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.value is not None and self.column is None:
            raise ValueError(f"`value` needs the `column` that has it. Received: {self.value!r} without a column.")
        if self.minimum is None and self.maximum is None and self.max_fall is None:
            raise ValueError(f"the demand on {self.metric} asks nothing; give it a minimum, a maximum or a max_fall")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"`minimum` {self.minimum} is above `maximum` {self.maximum}, which no model can reach")
        metric = METRICS[self.metric]
        if self.max_fall is not None and not metric.rising:
            allowed = ", ".join(name for name, other in METRICS.items() if other.rising)
            raise ValueError(
                f"`max_fall` needs a metric of which more is better. Allowed: {allowed}. "
                f"Received: {self.metric}, of which {metric.direction.value}."
            )
        return self


#: `min_auc`, `max_auc_fall` and so on: the keys of what a blessing asks of all examples together.
_OVERALL_DEMANDS: dict[str, Any] = {
    key: (float, Field(default, ge=0, le=1, description=about))
    for metric in METRICS.values()
    if metric.minimum is not None
    for key, default, about in (
        (f"min_{metric.name}", metric.minimum, f"least {metric.title} of all examples together"),
        (f"max_{metric.name}_fall", 0.002, "allowed fall against the latest blessed model"),
    )
}
_Overall: Any = create_model("_Overall", __base__=Strict, **_OVERALL_DEMANDS)


class Evaluation(_Overall):
    """What the evaluation reports and what a model must reach to be pushed."""

    slices: tuple[str, ...] = Field((), description="features to slice by, beside the feature file's meta columns")
    weighting: Weighting = Field("impressions", description="the weight of a group (user) in GAUC")
    demands: tuple[Demand, ...] = Field((), description="further demands, above all on single slices")

    def slice_columns(self, file: FeatureFile) -> list[str]:
        """The columns that slices and demands name.

        Raises:
            UserError: one of them can't be sliced by.
        """
        allowed = sliceable(file)
        named = [*self.slices, *(demand.column for demand in self.demands if demand.column)]
        for name in named:
            if name not in allowed:
                raise UserError(
                    f"evaluation.slices: can't slice by column '{name}'. Allowed: {', '.join(sorted(allowed))}"
                )
        return named

    def all_demands(self, grouped: bool) -> list[Demand]:
        """Return the demands on all examples together, then the further ones.

        Args:
            grouped: whether the data has groups. Without them a metric that needs some has no demand by default; one
                that the experiment file makes stays, for the evaluation to refuse.
        """
        found = []
        for name, metric in METRICS.items():
            least, fall = f"min_{name}", f"max_{name}_fall"
            written = {least, fall} & self.model_fields_set
            if metric.minimum is not None and (grouped or written or not metric.needs_group):
                found.append(Demand(metric=name, minimum=getattr(self, least), max_fall=getattr(self, fall)))
        return [*found, *self.demands]
