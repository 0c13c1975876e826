//! Through which microscope a channel was seen: the named instrument, or what the file says.

use crate::{
    Error, Result,
    instrument::microscope::{Microscope, Optics, psf::Recipe},
    io::stack::{Channel, Metadata},
    reconstruction::Settings,
};

/// A microscope with what was assumed about it.
pub(super) struct Seen {
    pub(super) microscope: Microscope,
    pub(super) assumptions: Vec<String>,
}

/// The microscope of a channel: each channel has its own wavelength.
pub(super) fn seen(settings: &Settings, metadata: &Metadata, channel: &Channel) -> Result<Seen> {
    let mut assumptions = Vec::new();
    let emission = settings.stack.emission.map(|length| length.0).or(channel.emission);
    let microscope = match &settings.instrument {
        Some(name) => {
            let mut microscope = Microscope::find(name)?;
            assumptions.push(format!("instrument {name}: {}", microscope.summary));
            if let Some(emission) = emission.filter(|_| microscope.measured.is_none()) {
                microscope.recipe.optics.wavelength = emission;
                microscope.recipe.check(name)?;
            }
            microscope
        }
        None => told(metadata, emission)?,
    };
    let wavelength = microscope.recipe.optics.wavelength * 1e9;
    match emission {
        Some(_) => assumptions.push(format!("emission at {wavelength:.0} nm")),
        None => assumptions.push(format!("emission at {wavelength:.0} nm, as the instrument says")),
    }
    Ok(Seen { microscope, assumptions })
}

/// A microscope from the numbers in the file.
fn told(metadata: &Metadata, emission: Option<f64>) -> Result<Microscope> {
    let missing = |what: &str| {
        let problem = format!(
            "the file does not tell the {what}; name a microscope with --instrument (`antumbra instruments list`, or a YAML file of your own)"
        );
        Error::config("--instrument", problem)
    };
    let aperture = metadata.numerical_aperture.ok_or_else(|| missing("numerical aperture"))?;
    let emission = emission.ok_or_else(|| missing("emission wavelength"))?;
    let index = metadata.refractive_index.ok_or_else(|| missing("refractive index of the immersion"))?;
    let recipe = Recipe::new(Optics::matched(aperture, index, emission));
    recipe.check("the file's objective")?;
    Ok(Microscope {
        summary: format!("objective of NA {aperture} as the file says"),
        recipe,
        measured: None,
        pixel: None,
        camera: None,
        reconstruct: serde_json::Value::Null,
    })
}
