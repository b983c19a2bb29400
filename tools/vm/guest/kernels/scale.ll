; The kernel that the guest runs: values[i] *= factor, 256 items a workgroup.
; Code object version 5: what the ROCr of that Debian takes.
!llvm.module.flags = !{!0}
!0 = !{i32 1, !"amdhsa_code_object_version", i32 500}

declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workgroup.id.x()

define amdgpu_kernel void @kernel(ptr addrspace(1) %values, float %factor) {
  %item = call i32 @llvm.amdgcn.workitem.id.x()
  %group = call i32 @llvm.amdgcn.workgroup.id.x()
  %first = mul i32 %group, 256
  %i = add i32 %first, %item
  %at = getelementptr float, ptr addrspace(1) %values, i32 %i
  %value = load float, ptr addrspace(1) %at
  %scaled = fmul float %value, %factor
  store float %scaled, ptr addrspace(1) %at
  ret void
}
