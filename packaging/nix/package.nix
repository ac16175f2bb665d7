{ lib, rustPlatform, stdenv, binutils }:

rustPlatform.buildRustPackage {
  pname = "herald";
  version = (lib.importTOML ../../Cargo.toml).workspace.package.version;

  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;
  nativeBuildInputs = lib.optional stdenv.hostPlatform.isLinux binutils;

  # The tests fetch a model.
  doCheck = false;

  installPhase = ''
    runHook preInstall
    patchShebangs packaging
    packaging/install.sh --prefix "$out" --no-alias \
      --build "target/${stdenv.hostPlatform.rust.rustcTarget}/release"
    runHook postInstall
  '';

  # The plugins' folder is found beside the program's.
  doInstallCheck = true;
  installCheckPhase = ''
    HOME=$TMPDIR "$out/bin/herald" self-check
  '';

  meta = {
    description = "Language models on ordinary CPUs, computed by plugins behind a stable C ABI";
    license = with lib.licenses; [ mit asl20 ];
    mainProgram = "herald";
    platforms = lib.platforms.unix;
  };
}
