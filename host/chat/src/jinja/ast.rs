//! A parsed template. Chains of operators are flat lists, so that only brackets and blocks nest.

/// A name or a text: an index into [`Program::texts`].
pub(super) type Symbol = u32;

/// Names that the interpreter itself sets.
pub(super) const LOOP: Symbol = 0;
pub(super) const CALLER: Symbol = 1;
pub(super) const VARARGS: Symbol = 2;
pub(super) const KWARGS: Symbol = 3;
/// The texts of these.
pub(super) const RESERVED: [&str; 4] = ["loop", "caller", "varargs", "kwargs"];

/// A template, ready to be rendered.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// Names, strings and text between tags, each once.
    pub(super) texts: Vec<String>,
    pub(super) macros: Vec<Macro>,
    pub(super) body: Vec<Statement>,
}

/// A macro's declaration, or the body of a call block.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Symbol,
    pub(super) parameters: Vec<(Symbol, Option<Expression>)>,
    /// It mentions `varargs`, and so takes more arguments than it names.
    pub(super) takes_more: bool,
    /// It mentions `kwargs`.
    pub(super) takes_named: bool,
    pub(super) body: Vec<Statement>,
}

#[derive(Debug)]
pub(super) struct Statement {
    pub(super) line: u32,
    pub(super) kind: StatementKind,
}

#[derive(Debug)]
pub(super) enum StatementKind {
    Text(Symbol),
    Print(Expression),
    /// Conditions with their bodies, and what else.
    If(Vec<(Expression, Vec<Statement>)>, Vec<Statement>),
    For(Box<For>),
    Set(Target, Expression),
    SetBlock(Target, Vec<Filter>, Vec<Statement>),
    /// An index into [`Program::macros`].
    Macro(usize),
    /// A call, and the macro that is its `caller`.
    CallBlock(Expression, usize),
    FilterBlock(Vec<Filter>, Vec<Statement>),
    With(Vec<(Target, Expression)>, Vec<Statement>),
    /// Statements that stand for themselves (`generation`, `block`, `autoescape`).
    Body(Vec<Statement>),
    Break,
    Continue,
    /// It needs other templates (`include`).
    Elsewhere(String),
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) items: Expression,
    pub(super) condition: Option<Expression>,
    pub(super) recursive: bool,
    pub(super) body: Vec<Statement>,
    pub(super) otherwise: Vec<Statement>,
}

/// What is assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(Symbol),
    /// An attribute of a namespace.
    Attribute(Symbol, Symbol),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(super) struct Expression {
    pub(super) line: u32,
    pub(super) kind: ExpressionKind,
}

#[derive(Debug)]
pub(super) enum ExpressionKind {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Symbol),
    Name(Symbol),
    List(Vec<Expression>),
    Tuple(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    /// A value and what is taken from it, one after the other.
    Postfix(Box<Expression>, Vec<Postfix>),
    /// Operators of one rank, from left to right.
    Arithmetic(Box<Expression>, Vec<(Operator, Expression)>),
    Concatenation(Vec<Expression>),
    Comparison(Box<Expression>, Vec<(Comparison, Expression)>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    /// `not`; `negated` is false for an even number of them.
    Not(Box<Expression>, bool),
    /// Signs before a number; `negated` is false for an even number of minus signs.
    Signed(Box<Expression>, bool),
    /// The value, its condition, and the other value.
    Conditional(Box<(Expression, Expression, Option<Expression>)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

#[derive(Debug)]
pub(super) struct Postfix {
    pub(super) line: u32,
    pub(super) kind: PostfixKind,
}

#[derive(Debug)]
pub(super) enum PostfixKind {
    Attribute(Symbol),
    Item(Expression),
    /// Start, stop, step.
    Slice(Box<[Option<Expression>; 3]>),
    Call(Arguments),
    Filter(Filter),
    /// A test, and whether `not` is before it.
    Test(Symbol, Arguments, bool),
}

#[derive(Debug)]
pub(super) struct Filter {
    pub(super) name: Symbol,
    pub(super) arguments: Arguments,
}

#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expression>,
    pub(super) named: Vec<(Symbol, Expression)>,
    /// `*args`
    pub(super) list: Option<Box<Expression>>,
    /// `**kwargs`
    pub(super) dict: Option<Box<Expression>>,
}
