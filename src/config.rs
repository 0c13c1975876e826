//! Layered settings: defaults < instrument file < run file < `ANTUMBRA_*` < `--set` < flags, each value with its origin.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Largest settings file that is read, bytes.
const LARGEST_FILE: u64 = 1 << 20;
/// The key that says which variant of a section is meant; changing it drops the other variant's settings.
const VARIANT: &str = "name";
const ENVIRONMENT: &str = "ANTUMBRA_";

/// Settings merged from several layers.
#[derive(Debug, Clone)]
pub struct Layers {
    value: Value,
    /// Dotted path of each leaf to the layer that set it.
    origins: BTreeMap<String, String>,
}

impl Layers {
    /// The lowest layer: the defaults of `T`.
    ///
    /// # Errors
    /// Never for settings that can be written as YAML.
    pub fn defaults<T: Serialize>(defaults: &T) -> Result<Self> {
        let value = serde_json::to_value(defaults).map_err(|e| Error::config("defaults", e.to_string()))?;
        let mut layers = Self { value: Value::Object(Map::new()), origins: BTreeMap::new() };
        layers.merge(value, "default");
        Ok(layers)
    }

    /// Puts `over` on top; values that it does not name stay.
    pub fn merge(&mut self, over: Value, origin: &str) {
        merge_at(&mut self.value, over, "", origin, &mut self.origins);
    }

    /// Puts a YAML file on top.
    ///
    /// # Errors
    /// A file that cannot be read, is too large, or is not a YAML mapping.
    pub fn merge_file(&mut self, file: &Path) -> Result<()> {
        self.merge(read_yaml(file)?, &file.display().to_string());
        Ok(())
    }

    /// Puts the variables `ANTUMBRA_A__B=value` on top, as `a.b`.
    ///
    /// # Errors
    /// A value that is not YAML.
    pub fn merge_environment(&mut self, variables: impl Iterator<Item = (String, String)>) -> Result<()> {
        for (name, text) in variables {
            if let Some(key) = name.strip_prefix(ENVIRONMENT) {
                self.set(&key.to_lowercase().replace("__", "."), &text, &name)?;
            }
        }
        Ok(())
    }

    /// Sets one value by dotted path; `text` is YAML.
    ///
    /// # Errors
    /// An empty path or a value that is not YAML.
    pub fn set(&mut self, key: &str, text: &str, origin: &str) -> Result<()> {
        let leaf: Value = serde_yaml::from_str(text)
            .map_err(|e| Error::config(origin, format!("`{text}` is not a YAML value: {e}")))?;
        if key.is_empty() || key.split('.').any(str::is_empty) {
            return Err(Error::config(origin, format!("`{key}` is not a dotted path such as solver.name")));
        }
        let nested =
            key.rsplit('.').fold(leaf, |inner, part| Value::Object(Map::from_iter([(part.into(), inner)])));
        self.merge(nested, origin);
        Ok(())
    }

    /// The settings as `T`.
    ///
    /// # Errors
    /// An unknown key or a wrong value, named by its path and the layer that set it.
    pub fn resolve<T: DeserializeOwned>(&self) -> Result<T> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let path = error.path().to_string();
            let place = match self.origin_below(&path) {
                Some(origin) => format!("{path} (from {origin})"),
                None => path,
            };
            Error::config(place, error.into_inner().to_string())
        })
    }

    /// The layer that last set a value at or below `path`, the defaults counting least.
    fn origin_below(&self, path: &str) -> Option<&String> {
        let inside = |key: &str| key == path || key.starts_with(&format!("{path}."));
        let all =
            || self.origins.iter().filter(|(key, _)| path == "." || inside(key)).map(|(_, origin)| origin);
        all().find(|origin| *origin != "default").or_else(|| all().next())
    }

    /// One line a value: `path: value  # origin`.
    pub fn describe(&self) -> String {
        self.origins.iter().fold(String::new(), |mut text, (path, origin)| {
            let pointer = format!("/{}", path.replace('.', "/"));
            let value = self.value.pointer(&pointer).unwrap_or(&Value::Null);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:<60} # {origin}", format!("{path}: {value}"));
            text
        })
    }
}

fn merge_at(base: &mut Value, over: Value, path: &str, origin: &str, origins: &mut BTreeMap<String, String>) {
    if let Value::Object(over) = over {
        let other_variant =
            over.get(VARIANT).is_some_and(|name| base.get(VARIANT).is_some_and(|old| old != name));
        if !base.is_object() || other_variant {
            forget(origins, path);
            *base = Value::Object(Map::new());
        }
        if let Value::Object(base) = base {
            for (key, value) in over {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                merge_at(base.entry(key).or_insert(Value::Null), value, &path, origin, origins);
            }
        }
    } else {
        forget(origins, path);
        origins.insert(path.to_string(), origin.to_string());
        *base = over;
    }
}

fn forget(origins: &mut BTreeMap<String, String>, path: &str) {
    let below = format!("{path}.");
    origins.retain(|key, _| key != path && !key.starts_with(&below));
}

/// A YAML file as a generic value.
///
/// # Errors
/// A file that cannot be read, is too large, or is not a YAML mapping.
pub fn read_yaml(file: &Path) -> Result<Value> {
    let size = fs::metadata(file).map_err(|e| Error::io(file, e))?.len();
    if size > LARGEST_FILE {
        return Err(Error::format(file, "size", format!("{size} bytes; a settings file is below 1 MiB")));
    }
    let text = fs::read_to_string(file).map_err(|e| Error::io(file, e))?;
    match serde_yaml::from_str(&text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Error::format(file, "top level", "expected `key: value` lines")),
        Err(error) => Err(Error::format(file, "YAML", error.to_string())),
    }
}

/// Settings as YAML text.
///
/// # Errors
/// Settings that YAML cannot hold.
pub fn to_yaml<T: Serialize>(settings: &T) -> Result<String> {
    serde_yaml::to_string(settings).map_err(|e| Error::config("settings", e.to_string()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Run {
        seed: u64,
        solver: Choice,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
    enum Choice {
        Slow { steps: usize },
        Fast { rate: f64 },
    }

    fn layers() -> Layers {
        Layers::defaults(&Run { seed: 1, solver: Choice::Slow { steps: 5 } }).unwrap()
    }

    #[test]
    fn later_layers_win_and_are_named() {
        let mut layers = layers();
        layers.merge(json!({"seed": 2}), "run.yaml");
        layers.merge_environment([("ANTUMBRA_SOLVER__STEPS".into(), "7".into())].into_iter()).unwrap();
        layers.set("seed", "3", "--set").unwrap();
        let run: Run = layers.resolve().unwrap();
        assert_eq!(run, Run { seed: 3, solver: Choice::Slow { steps: 7 } });
        let text = layers.describe();
        assert!(text.contains("seed: 3") && text.contains("# --set"), "{text}");
        assert!(text.contains("# ANTUMBRA_SOLVER__STEPS") && text.contains("# default"), "{text}");
    }

    #[test]
    fn another_variant_forgets_the_settings_of_the_first() {
        let mut layers = layers();
        layers.merge(json!({"solver": {"name": "fast", "rate": 0.5}}), "run.yaml");
        assert_eq!(layers.resolve::<Run>().unwrap().solver, Choice::Fast { rate: 0.5 });
    }

    #[test]
    fn mistakes_are_named_with_path_and_layer() {
        let mut layers = layers();
        layers.set("sede", "3", "--set").unwrap();
        let message = layers.resolve::<Run>().unwrap_err().to_string();
        assert!(message.contains("sede"), "{message}");
        let mut layers = self::layers();
        layers.merge(json!({"seed": "many"}), "run.yaml");
        let message = layers.resolve::<Run>().unwrap_err().to_string();
        assert!(message.contains("seed") && message.contains("run.yaml"), "{message}");
        assert!(layers.set("solver..x", "1", "--set").is_err());
    }
}
