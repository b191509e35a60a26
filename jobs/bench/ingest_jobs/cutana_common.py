"""Settings and sources of Cutana as its documentation gives them: no stretch, no resampling, no conversion."""

from typing import Any

import pandas as pd
from cutana import get_default_config


def config_of(output: str, size: int) -> Any:
    """Settings for float32 cutouts of the pixels as they are."""
    config = get_default_config()
    config.output_dir, config.output_format, config.target_resolution = output, "zarr", size
    config.selected_extensions = [{"name": "VIS", "ext": "PrimaryHDU"}]
    config.channel_weights = {"VIS": [1.0]}
    config.normalisation_method, config.data_type = "none", "float32"
    config.apply_flux_conversion = False
    config.console_log_level = config.log_level = "ERROR"
    return config


def sources_of(tile: str, path: str, size: int) -> pd.DataFrame:
    """The table of sources in Cutana's columns."""
    sources = pd.read_parquet(path)
    return pd.DataFrame(
        {
            "SourceID": sources["object_id"].astype(str),
            "RA": sources["ra"],
            "Dec": sources["dec"],
            "diameter_pixel": size,
            "fits_file_paths": f"['{tile}']",
        }
    )
