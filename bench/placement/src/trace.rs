//! Node and task lists in the format of the Alibaba GPU trace of 2023 (openb): CSV with a header line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

/// Thousandths of a GPU in one GPU.
pub(crate) const WHOLE: u16 = 1000;
/// The most GPUs of one node.
pub(crate) const GPUS_MAX: usize = 8;

/// What a task asks of a node, but for its memory: what placement and fragmentation look at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Shape {
    /// Thousandths of a CPU.
    pub(crate) cpu: u32,
    /// GPUs; 0: none.
    pub(crate) gpus: u8,
    /// Thousandths of each of those GPUs. Below 1000 only with one GPU.
    pub(crate) milli: u16,
    /// Bit n set: model n will do. 0: any.
    pub(crate) models: u32,
}

impl Shape {
    /// Thousandths of GPUs in all.
    pub(crate) fn gpu_milli(&self) -> u64 {
        u64::from(self.gpus) * u64::from(self.milli)
    }

    /// Whether a node's model will do.
    pub(crate) fn takes(&self, model: u8) -> bool {
        self.gpus == 0 || self.models == 0 || self.models & 1 << model != 0
    }
}

/// One task.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// Its name in the list.
    pub(crate) name: String,
    /// Which of [`Trace::shapes`].
    pub(crate) shape: usize,
    /// MiB.
    pub(crate) memory: u64,
}

/// One empty node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Its name in the list.
    pub(crate) name: String,
    /// Thousandths of a CPU.
    pub(crate) cpu: u32,
    /// MiB.
    pub(crate) memory: u64,
    /// GPUs.
    pub(crate) gpus: u8,
    /// Which of [`Trace::models`].
    pub(crate) model: u8,
}

/// A cluster and what is asked of it, both sorted by name.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// The nodes.
    pub(crate) nodes: Vec<Node>,
    /// The tasks.
    pub(crate) tasks: Vec<Task>,
    /// Every different thing that a task asks.
    pub(crate) shapes: Vec<Shape>,
    /// Names of GPU models.
    pub(crate) models: Vec<String>,
}

impl Trace {
    /// Reads both lists.
    ///
    /// # Errors
    /// A file that cannot be read, and the first value that is missing or out of bounds, with file, line and column.
    pub(crate) fn read(nodes: &Path, tasks: &Path) -> Result<Self> {
        let mut models: Vec<String> = Vec::new();
        let mut model_of = |name: &str| -> Result<u8> {
            let known = models.iter().position(|known| known == name);
            let index = known.unwrap_or_else(|| {
                models.push(name.to_owned());
                models.len() - 1
            });
            ensure!(index < 32, "names a 33rd GPU model, {name:?}; 32 are supported");
            Ok(u8::try_from(index)?)
        };
        let mut list = Table::read(nodes)?;
        let mut found_nodes = list.rows(|row| {
            let gpus = row.number("gpu", GPUS_MAX as u64)?;
            Ok(Node {
                name: row.text("sn")?.to_owned(),
                cpu: row.number("cpu_milli", 10_000_000)?,
                memory: row.number("memory_mib", 1 << 40)?,
                gpus,
                model: model_of(row.text("model")?)?,
            })
        })?;
        let mut shapes: Vec<Shape> = Vec::new();
        let mut shape_of: BTreeMap<Shape, usize> = BTreeMap::new();
        let mut list = Table::read(tasks)?;
        let mut found_tasks = list.rows(|row| {
            let gpus: u8 = row.number("num_gpu", GPUS_MAX as u64)?;
            let milli = if gpus == 0 { 0 } else { row.number::<u64>("gpu_milli", 1_000_000)?.min(u64::from(WHOLE)) };
            ensure!(gpus == 0 || milli > 0, "asks {gpus} GPUs and nothing of them (column gpu_milli)");
            ensure!(gpus < 2 || milli == u64::from(WHOLE), "asks shares of {gpus} GPUs (column gpu_milli)");
            let mut models = 0;
            for name in row.text_or_empty("gpu_spec").split('|').filter(|name| !name.is_empty()) {
                models |= 1 << model_of(name)?;
            }
            let shape = Shape { cpu: row.number("cpu_milli", 10_000_000)?, gpus, milli: u16::try_from(milli)?, models };
            let shape = *shape_of.entry(shape).or_insert_with(|| {
                shapes.push(shape);
                shapes.len() - 1
            });
            Ok(Task { name: row.text("name")?.to_owned(), shape, memory: row.number("memory_mib", 1 << 40)? })
        })?;
        ensure!(!found_nodes.is_empty(), "{} holds no node", nodes.display());
        ensure!(!found_tasks.is_empty(), "{} holds no task", tasks.display());
        found_nodes.sort_by(|a, b| a.name.cmp(&b.name));
        found_tasks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { nodes: found_nodes, tasks: found_tasks, shapes, models })
    }

    /// Thousandths of all GPUs.
    pub(crate) fn capacity(&self) -> u64 {
        self.nodes.iter().map(|node| u64::from(node.gpus) * u64::from(WHOLE)).sum()
    }
}

/// A CSV file without quoted fields: names, numbers and model lists have neither commas nor quotes.
struct Table {
    file: String,
    columns: BTreeMap<String, usize>,
    lines: Vec<(usize, Vec<String>)>,
}

struct Row<'a> {
    columns: &'a BTreeMap<String, usize>,
    fields: &'a [String],
}

impl Table {
    fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| format!("reading {file}"))?;
        let fields = |line: &str| line.trim_end_matches('\r').split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let Some((_, header)) = lines.next() else { bail!("{file} is empty") };
        ensure!(!text.contains('"'), "{file} has quoted fields, which this reader does not know");
        let columns = fields(header).into_iter().enumerate().map(|(index, name)| (name, index)).collect();
        Ok(Self { file, columns, lines: lines.map(|(number, line)| (number + 1, fields(line))).collect() })
    }

    fn rows<T>(&mut self, mut read: impl FnMut(Row<'_>) -> Result<T>) -> Result<Vec<T>> {
        let row = |(number, fields): &(usize, Vec<String>)| {
            read(Row { columns: &self.columns, fields }).with_context(|| format!("{}, line {number}", self.file))
        };
        self.lines.iter().map(row).collect()
    }
}

impl Row<'_> {
    fn text(&self, column: &str) -> Result<&str> {
        let index = self.columns.get(column).with_context(|| format!("there is no column {column}"))?;
        let field = self.fields.get(*index).map(String::as_str).filter(|field| !field.is_empty());
        field.with_context(|| format!("column {column} is empty"))
    }

    fn text_or_empty(&self, column: &str) -> &str {
        self.columns.get(column).and_then(|index| self.fields.get(*index)).map_or("", String::as_str)
    }

    fn number<T: FromStr + TryFrom<u64>>(&self, column: &str, most: u64) -> Result<T> {
        let text = self.text(column)?;
        let number = text.parse::<u64>().ok().filter(|number| *number <= most);
        let number = number.with_context(|| format!("column {column} is {text:?}, not a number from 0 to {most}"))?;
        T::try_from(number).ok().with_context(|| format!("column {column} is {number}, too much"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\nb,8000,1024,1,T4\na,64000,2048,8,A100\n";
    const TASKS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n\
                         y,4000,10,1,500,T4|A100\nx,1000,0,0,0,\nz,4000,20,1,500,T4|A100\r\n";

    fn read(nodes: &str, tasks: &str) -> Result<Trace> {
        let folder = tempfile::tempdir()?;
        let (of_nodes, of_tasks) = (folder.path().join("nodes.csv"), folder.path().join("tasks.csv"));
        fs::write(&of_nodes, nodes)?;
        fs::write(&of_tasks, tasks)?;
        Trace::read(&of_nodes, &of_tasks)
    }

    #[test]
    fn lists_are_sorted_and_equal_wishes_are_one_shape() {
        let trace = read(NODES, TASKS).unwrap();
        assert_eq!(trace.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(trace.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(), ["x", "y", "z"]);
        assert_eq!((trace.shapes.len(), trace.tasks[1].shape), (2, trace.tasks[2].shape));
        assert_eq!(trace.capacity(), 9000);
        assert!(trace.shapes[trace.tasks[1].shape].takes(0) && trace.shapes[trace.tasks[0].shape].takes(5));
    }

    #[test]
    fn what_is_malformed_is_named_with_line_and_column() {
        let told = |nodes: &str, tasks: &str| format!("{:#}", read(nodes, tasks).unwrap_err());
        for (tasks, words) in [
            (TASKS.replace("y,4000", "y,-4"), ["line 2", "cpu_milli"]),
            (TASKS.replace("1,500,T4|A100\nx", "9,500,\nx"), ["line 2", "num_gpu"]),
            (TASKS.replace("1,500,T4|A100\nx", "2,500,\nx"), ["line 2", "gpu_milli"]),
            (TASKS.replace("num_gpu", "gpus"), ["line 2", "num_gpu"]),
            ("name\n".to_owned(), ["tasks.csv", "no task"]),
            (String::new(), ["tasks.csv", "empty"]),
            (TASKS.replace("y,", "\"y\","), ["tasks.csv", "quoted"]),
        ] {
            let told = told(NODES, &tasks);
            assert!(words.iter().all(|word| told.contains(word)), "{told}");
        }
        let told = told(&NODES.replace("64000", "many"), TASKS);
        assert!(told.contains("line 3") && told.contains("cpu_milli"), "{told}");
    }
}
