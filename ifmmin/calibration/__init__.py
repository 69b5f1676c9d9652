"""Whether probabilities are honest: how far they are off, temperatures that mend them, and what each modality gave."""

from ifmmin.calibration.measures import MEASURES, measures, risk_coverage_area
from ifmmin.calibration.temperatures import calibrated, fit_temperature, fit_temperatures, store_temperatures

__all__ = [
    "MEASURES",
    "calibrated",
    "fit_temperature",
    "fit_temperatures",
    "measures",
    "risk_coverage_area",
    "store_temperatures",
]
