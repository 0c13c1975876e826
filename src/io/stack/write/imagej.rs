//! ImageJ's description and slice labels.

use tiff::tags::Tag;

use super::super::Metadata;
use super::Numbers;

/// Lines `key=value`. The pixel size is in the resolution tags, in pixels per unit.
pub(super) fn description(metadata: &Metadata) -> String {
    let [time, channels, z, _, _] = metadata.shape.sizes();
    let mode = if channels > 1 { "composite" } else { "grayscale" };
    let mut text = format!(
        "ImageJ=1.11a\nimages={}\nchannels={channels}\nslices={z}\nframes={time}\nhyperstack=true\nmode={mode}\n\
         loop=false\n",
        time * channels * z
    );
    let [pitch_z, pitch_y, pitch_x] = metadata.voxel;
    if pitch_y.and(pitch_x).is_some() {
        text += "unit=um\n";
        if let Some(pitch) = pitch_z {
            text += &format!("spacing={}\n", (pitch * 1e15).round() / 1e9);
        }
    }
    text
}

/// The private tags with one label a plane: the name of its channel. Nothing if no channel has a name.
pub(super) fn label_tags(metadata: &Metadata) -> Vec<(Tag, Numbers)> {
    if metadata.channels.iter().all(|channel| channel.name.is_none()) {
        return Vec::new();
    }
    let [time, channels, z, _, _] = metadata.shape.sizes();
    let planes = time * z * channels;
    // In the byte order of the file, which is that of this machine.
    let mut bytes = if cfg!(target_endian = "big") { b"IJIJlabl".to_vec() } else { b"JIJIlbal".to_vec() };
    bytes.extend((planes as u32).to_ne_bytes());
    let mut counts = vec![bytes.len() as u32];
    for plane in 0..planes {
        let name = metadata.channels.get(plane % channels).and_then(|channel| channel.name.as_deref());
        let start = bytes.len();
        name.unwrap_or_default().encode_utf16().for_each(|unit| bytes.extend(unit.to_ne_bytes()));
        counts.push((bytes.len() - start) as u32);
    }
    vec![(Tag::Unknown(50838), Numbers::Longs(counts)), (Tag::Unknown(50839), Numbers::Bytes(bytes))]
}
