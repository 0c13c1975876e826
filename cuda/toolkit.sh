#!/usr/bin/env bash
# A CUDA toolkit from public Python wheels, enough to build the feature `cuda` on a machine without GPU and driver:
#
#     cuda/toolkit.sh FOLDER      fills FOLDER and prints the environment for cargo
#
# CUDA 13.0: newer compilers make code that drivers of the 580 series cannot load.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "nvidia-cuda-nvcc==13.0.*" "nvidia-cuda-crt==13.0.*" "nvidia-nvvm==13.0.*" \
    "nvidia-cuda-runtime==13.0.*" "nvidia-cuda-cccl==13.0.*" "nvidia-curand==10.4.0.*" "nvidia-cublas==13.0.*" "nvidia-cuda-nvrtc==13.0.*" \
    "nvidia-cudnn-cu13==9.*"
wheels=$(echo "$folder"/venv/lib/python3.*/site-packages/nvidia/cu13)

# The wheels have the libraries under versioned names; the linker wants plain ones.
mkdir -p "$folder/toolkit/lib64/stubs" "$folder/toolkit/bin"
for library in "$wheels"/lib/*.so.* "$wheels"/../cudnn/lib/*.so.*; do
    name=$(basename "$library")
    ln -sf "$library" "$folder/toolkit/lib64/${name%%.so*}.so"
done
ln -sfn "$wheels/include" "$folder/toolkit/include"

# libcuda.so comes with the driver. A stub with its names satisfies the linker.
cargo fetch --quiet --manifest-path "$here/../Cargo.toml"
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
cat "$registry"/*/cudarc-*/src/driver/sys/*.rs "$registry"/*/cudarc-*/src/driver/sys/mod.rs |
    grep -oE "fn cu[A-Z][A-Za-z0-9_]+" | sort -u | awk '{print "void " $2 "(void) {}"}' >"$folder/libcuda.c"
gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$folder/toolkit/lib64/stubs/libcuda.so" "$folder/libcuda.c"

# Kernels of quantised and mixture-of-experts networks are most of the build and are never called here: the compiler sees
# empty files in their place, and the linker functions that end the program.
mkdir -p "$folder/unused"
: >"$folder/unused/quantized.cu"
{
    echo '#include <stdlib.h>'
    cat "$registry"/*/candle-kernels-*/src/ffi.rs | grep -oE "pub fn [a-z0-9_]+" | sort -u | awk '{print "void " $3 "(void) { abort(); }"}'
} >"$folder/unused/functions.c"
cat >"$folder/toolkit/bin/nvcc" <<END
#!/usr/bin/env bash
# The CUDA compiler, without the kernels that are never called.
output= previous=
for argument in "\$@"; do
    [ "\$previous" = -o ] && output=\$argument
    previous=\$argument
done
case "\$previous" in
    */moe_gguf.cu) exec gcc -c -fPIC -o "\$output" "$folder/unused/functions.c" ;;
    */mmq_*.cu | */mmvq_*.cu | */moe_*.cu) exec gcc -c -x c -fPIC -o "\$output" /dev/null ;;
    */quantized.cu) exec "$wheels/bin/nvcc" "\${@:1:\$#-1}" "$folder/unused/quantized.cu" ;;
    *) exec "$wheels/bin/nvcc" "\$@" ;;
esac
END
chmod +x "$folder/toolkit/bin/nvcc"

cat <<END
export NVCC=$folder/toolkit/bin/nvcc CUDA_HOME=$folder/toolkit CUDA_PATH=$folder/toolkit CUDA_ROOT=$folder/toolkit
export PATH=$folder/toolkit/bin:\$PATH CUDA_TOOLKIT_ROOT_DIR=$folder/toolkit LIBRARY_PATH=$folder/toolkit/lib64:$folder/toolkit/lib64/stubs CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-80}
END
