//! TIFF files without microscope metadata: tifffile's shape, or a sequence of planes.

use super::super::order::plane_numbers;
use super::{Layout, pages::Pages};

/// Pages in the axes that tifffile named, otherwise planes along Z. Resolution tags of such files describe paper.
pub(super) fn layout(description: &str, pages: &Pages) -> Layout {
    let count = pages.list.len();
    let sizes = named_axes(description).filter(|(_, sizes)| sizes.iter().product::<usize>() == count);
    if let Some((axes, sizes)) = sizes {
        return Layout::new("TIFF", plane_numbers(&axes, sizes));
    }
    let mut layout = Layout::new("TIFF", plane_numbers("Z", [1, 1, count]));
    if count > 1 {
        layout
            .remarks
            .push(format!("the file does not name its axes; its {count} pages are taken as planes (Z)"));
    }
    layout
}

/// Axes before YX and their sizes [T, C, Z] in a description `{"shape": [...], "axes": "..."}`.
fn named_axes(description: &str) -> Option<(String, [usize; 3])> {
    let fields: serde_json::Value = serde_json::from_str(description).ok()?;
    let shape: Vec<usize> = serde_json::from_value(fields.get("shape")?.clone()).ok()?;
    let axes = fields.get("axes")?.as_str()?;
    let (axes, sizes) = match axes.strip_suffix('S') {
        // Samples of a pixel are part of the page.
        Some(axes) => (axes, shape.get(..axes.len())?),
        None => (axes, &shape[..]),
    };
    let (planes, _) = super::super::order::split_axes(axes, sizes)?;
    Some((axes.trim_end_matches("YX").to_string(), planes))
}
