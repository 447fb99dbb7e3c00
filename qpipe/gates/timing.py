"""Whether a profile may be trusted, and which batch size a gate means."""

from __future__ import annotations

from qpipe.records.evidence import BatchProfile, Profile


def distrust(profile: Profile) -> str:
    """Why the times of a profile decide nothing, or empty."""
    if not profile.outputs_match:
        return "the outputs of the timed run differ from those that were evaluated"
    if profile.drifted:
        how = f": {profile.drift}" if profile.drift else ""
        return f"the machine drifted{how} ({profile.voided} runs voided)"
    return ""


def trusted_batch(profile: Profile, batch: int | None) -> BatchProfile | str:
    """The profile at one batch size (None: the first that was measured), or why its times decide nothing."""
    return distrust(profile) or _batch_of(profile, batch)


def _batch_of(profile: Profile, batch: int | None) -> BatchProfile | str:
    if not profile.batches:
        return "not measured: the profile has no batch size"
    if batch is None:
        return profile.batches[0]
    sizes = ", ".join(str(one.batch) for one in profile.batches)
    found = next((one for one in profile.batches if one.batch == batch), None)
    return f"not measured: batch {batch} was not profiled (only {sizes})" if found is None else found
