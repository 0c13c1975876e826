//! Reads a UVFITS file and writes its Stokes I visibilities to another one: `copy_uvfits IN OUT`.

use std::path::PathBuf;

use antumbra::io::uvfits::{read_observation, write_observation};

fn main() -> antumbra::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err(antumbra::Error::config("arguments", "give two file names: copy_uvfits IN OUT"));
    };
    let observation = read_observation(&input)?;
    write_observation(&observation, &output)?;
    println!("{}: {} visibilities", output.display(), observation.visibilities.len());
    Ok(())
}
