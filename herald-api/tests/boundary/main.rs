//! The boundary in one process: plugins of safe traits that work end to end through their C tables, tables of other
//! versions' sizes, and tables, answers and calls that are wrong in every way a neighbour can be. Each fault costs one clear
//! sentence.

mod answers;
mod constants;
mod loras;
mod observed;
mod panics;
mod plugin;
mod refused;
mod shapes;
mod sizes;
mod sound;
mod support;
mod threads;
mod works;
