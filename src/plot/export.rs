//! From SVG to the files a journal takes: SVG, PNG (300 dpi) and PDF with embedded fonts.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use resvg::{tiny_skia, usvg};

use super::canvas::FONT_DATA;
use crate::{Error, Result, io::atomic};

/// Resolution of PNG files, dots per inch.
const PNG_DPI: f32 = 300.0;
/// CSS pixels per inch, the unit of parsed SVG trees.
const CSS_DPI: f32 = 96.0;

/// A figure's file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Portable network graphics, 300 dpi.
    Png,
    /// Scalable vector graphics.
    Svg,
    /// Portable document format, one page of the figure's size.
    Pdf,
}

impl Format {
    /// File name extension.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Svg => "svg",
            Self::Pdf => "pdf",
        }
    }

    /// The bytes of a file of this format.
    ///
    /// # Errors
    /// The SVG cannot be parsed or converted.
    pub fn encode(self, svg: &str) -> Result<Vec<u8>> {
        match self {
            Self::Svg => Ok(svg.as_bytes().to_vec()),
            Self::Png => png(&parse(svg)?),
            Self::Pdf => pdf(&parse(svg)?),
        }
    }
}

fn parse(svg: &str) -> Result<usvg::Tree> {
    static FONTS: LazyLock<Arc<usvg::fontdb::Database>> = LazyLock::new(|| {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(FONT_DATA.to_vec());
        Arc::new(fonts)
    });
    let options = usvg::Options {
        fontdb: Arc::clone(&FONTS),
        font_family: super::style::FONT.to_string(),
        ..usvg::Options::default()
    };
    usvg::Tree::from_str(svg, &options).map_err(|error| Error::Figure(error.to_string()))
}

fn png(tree: &usvg::Tree) -> Result<Vec<u8>> {
    let scale = PNG_DPI / CSS_DPI;
    let size = tree.size().to_int_size().scale_by(scale);
    let pixmap = size.and_then(|size| tiny_skia::Pixmap::new(size.width(), size.height()));
    let mut pixmap = pixmap.ok_or_else(|| Error::Figure("an empty page".into()))?;
    resvg::render(tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| Error::Figure(error.to_string()))
}

fn pdf(tree: &usvg::Tree) -> Result<Vec<u8>> {
    let page = svg2pdf::PageOptions { dpi: CSS_DPI };
    svg2pdf::to_pdf(tree, svg2pdf::ConversionOptions::default(), page)
        .map_err(|error| Error::Figure(error.to_string()))
}

/// Writes `<directory>/<name>.<extension>` in every format and returns the paths.
///
/// # Errors
/// The SVG cannot be converted, or a file cannot be written.
pub(crate) fn write(svg: &str, name: &str, directory: &Path, formats: &[Format]) -> Result<Vec<PathBuf>> {
    let write_one = |format: &Format| {
        let path = directory.join(format!("{name}.{}", format.extension()));
        atomic::replace_bytes(&path, &format.encode(svg)?)?;
        Ok(path)
    };
    formats.iter().map(write_one).collect()
}
