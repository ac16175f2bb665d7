//! `host serve` with several models, and the configuration of it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command as Process, Stdio};

use herald_testing::tiny;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{fails, home, host, json, misused, stdout};

/// A server that ends when this is dropped.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(home: &TempDir, arguments: &[&str]) -> Self {
        let assembled = host(home);
        let mut process = Process::new(assembled.get_program());
        process.stdin(Stdio::null());
        Self::run(process, &assembled, arguments)
    }

    /// Starts the server by `process`, which the program's arguments go to.
    fn run(mut process: Process, assembled: &assert_cmd::Command, arguments: &[&str]) -> Self {
        process.args(assembled.get_args()).args(["serve", "--quiet"]).args(arguments);
        for (name, value) in assembled.get_envs() {
            match value {
                Some(value) => process.env(name, value),
                None => process.env_remove(name),
            };
        }
        let mut child = process.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("its address");
        let address = line.trim().strip_prefix("http://").expect("an address").to_owned();
        Self { child, address }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let mut socket = TcpStream::connect(&self.address).expect("a connection");
        let length = body.len();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .expect("it is sent");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("an answer");
        let (_, body) = text.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    fn names(&self) -> Vec<String> {
        let models = self.ask("GET", "/v1/models", "");
        let models = models["data"].as_array().expect("a list").iter();
        models.map(|model| model["id"].as_str().expect("a name").to_owned()).collect()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn models_of_a_folder_and_of_the_configuration_are_served() {
    let home = home();
    let models = home.path().join("models");
    fs::create_dir(&models).expect("a folder");
    for (name, from) in [("a.gguf", "llama"), ("b.gguf", "granite"), ("mmproj-a.gguf", "llama")] {
        fs::copy(tiny(from), models.join(name)).expect("a copy");
    }
    fs::write(models.join("notes.txt"), "none").expect("a file");
    // Half a download.
    let whole = fs::read(tiny("llama")).expect("a model");
    fs::write(models.join("c.gguf"), &whole[..whole.len() / 2]).expect("a file");
    let folder = Serving::start(&home, &["--port", "0", "--model", models.to_str().expect("UTF-8")]);
    assert_eq!(folder.names(), ["a", "b"]);
    let configuration = home.path().join("config/herald/config.toml");
    fs::create_dir_all(configuration.parent().expect("a folder")).expect("the folder");
    let text = format!(
        "context = 64\n[serve]\nport = 0\nparallel = 3\n[sampling]\ntemperature = 0.25\n\
         [models.zeroth]\nmodel = {:?}\n[models.first]\nmodel = {:?}\n[models.second]\nmodel = {:?}\ncontext = 32\nsampling = {{ top-k = 7 }}\n",
        tiny("llama"),
        tiny("llama"),
        tiny("granite")
    );
    fs::write(&configuration, &text).expect("the file");
    let configured = Serving::start(&home, &[]);
    assert_eq!(configured.names(), ["zeroth", "first", "second"]);
    let answer =
        configured.ask("POST", "/v1/completions", &json!({"model": "second", "prompt": "a"}).to_string());
    assert_eq!(answer["model"], "second", "{answer}");
    let props = |model: &str| configured.ask("GET", &format!("/props?model={model}"), "");
    let (first, second) = (props("first"), props("second"));
    assert_eq!((&first["total_slots"], &second["total_slots"]), (&json!(3), &json!(3)), "{first}");
    let settings = |props: &Value| props["default_generation_settings"].clone();
    assert_eq!(
        (settings(&first)["n_ctx"].clone(), settings(&second)["n_ctx"].clone()),
        (json!(64), json!(32))
    );
    assert_eq!(settings(&first)["params"]["temperature"], 0.25);
    assert_eq!(settings(&second)["params"]["top_k"], 7);
    // A name of the configuration is a model everywhere.
    let named = host(&home).args(["info", "--json", "--model", "second"]).assert().success();
    assert_eq!(json(&named)["model"]["architecture"], "granite", "{}", stdout(&named));
}

#[test]
fn what_is_wrong_with_several_models_is_told_before_any_is_loaded() {
    let home = home();
    let [llama, granite] = ["llama", "granite"].map(|name| tiny(name).to_str().expect("UTF-8").to_owned());
    let twice = host(&home).args(["serve", "--model", &llama, "--model", &llama]).assert();
    fails(twice, &["two models are called", "llama"]);
    let damaged = home.path().join("damaged");
    fs::create_dir(&damaged).expect("a folder");
    fs::write(damaged.join("a.gguf"), "no model").expect("a file");
    fails(host(&home).args(["serve", "--quiet", "--model"]).arg(&damaged).assert(), &["a.gguf", "GGUF"]);
    let none = home.path().join("none");
    fs::create_dir(&none).expect("a folder");
    let empty = host(&home).args(["serve", "--model"]).arg(&none).assert();
    fails(empty, &["no GGUF file"]);
    let other = host(&home).args(["serve", "--model", &llama, "--model", "Cargo.toml"]).assert();
    fails(other, &["Cargo.toml", "GGUF"]);
    let one = host(&home).args(["generate", "hello", "--model", &llama, "--model", &granite]).assert();
    misused(one, &["--model", "2 times"]);
    let configuration = home.path().join("wrong.toml");
    for (text, words) in [
        ("[models.a]\ncontext = 5\n", ["models.a", "`model`"]),
        ("[models.a]\nmodel = \"x\"\n[models.a.serve]\nport = 1\n", ["models.a", "`serve`"]),
        ("[serve]\nports = 5\n", ["line 2", "ports"]),
        ("[serve]\nmodels-memory = \"many\"\n", ["models-memory", "2GiB"]),
    ] {
        fs::write(&configuration, text).expect("the file");
        fails(host(&home).arg("--config").arg(&configuration).arg("serve").assert(), &words);
    }
    fs::write(&configuration, "[sampling]\ntop-p = 7.0\n").expect("the file");
    let config =
        |arguments: &[&str]| host(&home).arg("--config").arg(&configuration).args(arguments).assert();
    fails(config(&["generate", "a", "--model", &llama]), &["sampling", "top_p is 7"]);
    // What the configuration says of sampling holds for an answer on the command line too.
    fs::write(&configuration, "[sampling]\ntemperature = 2.0\n").expect("the file");
    let drawn = |seed: &str| {
        stdout(&config(&["generate", "hello", "-n", "12", "--seed", seed, "--model", &llama]).success())
    };
    assert!(drawn("1") != drawn("2") && drawn("1") == drawn("1"));
    let warm = config(&["generate", "hello", "-n", "12", "--model", &llama]).success();
    let cold = config(&["generate", "hello", "-n", "12", "--temperature", "0", "--model", &llama]).success();
    assert_ne!(stdout(&warm), stdout(&cold));
    // What is empty counts as not given.
    let mut command = host(&home);
    command.env("HERALD_THREADS", "").env("HERALD_CONTEXT", "").args(["info", "--model", &llama]);
    command.assert().success();
    let wrong = host(&home).env("HERALD_CONTEXT", "few").args(["generate", "a", "--model", &llama]).assert();
    misused(wrong, &["few", "--context"]);
}

/// As systemd starts it: the socket is there before the server, and connections wait in it.
#[cfg(unix)]
#[test]
fn a_socket_that_is_handed_over_is_listened_on() {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;

    let home = home();
    let assembled = host(&home);
    // The number of the process is known only within it.
    let handed = |descriptors: &str, socket: OwnedFd| {
        let mut process = Process::new("sh");
        let line = format!("LISTEN_PID=$$ LISTEN_FDS={descriptors} exec \"$0\" \"$@\" 3<&0 </dev/null");
        process.args(["-c", &line]).arg(assembled.get_program()).stdin(Stdio::from(socket));
        process
    };
    let model = tiny("llama");
    let arguments = ["--model", model.to_str().expect("UTF-8"), "--port", "1"];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let early = TcpStream::connect(&address).expect("a connection before the server is there");
    let serving = Serving::run(handed("1", listener.into()), &assembled, &arguments);
    assert_eq!(serving.address, address);
    assert_eq!(serving.names(), ["llama.f32"]);
    drop((early, serving));

    let listener = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let file = OwnedFd::from(fs::File::open(&model).expect("a file"));
    for (descriptors, socket, words) in
        [("2", listener(), "where one was expected"), ("1", file, "no listening TCP socket")]
    {
        let mut process = handed(descriptors, socket);
        process.args(assembled.get_args()).args(["serve"]).args(arguments).env("HERALD_BACKEND", "cpu");
        let output = process.output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(words), "{said}");
    }
}
