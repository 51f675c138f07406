"""The callbacks of a training. Their base class is :class:`.base.TrainingCallback`."""
